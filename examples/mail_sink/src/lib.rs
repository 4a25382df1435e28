//! A mail server: [`session`] accepts mails by SMTP, [`store`] keeps them on the disk, [`forward`] forwards them.

pub mod forward;
pub mod session;
pub mod store;
