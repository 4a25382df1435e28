//! A receiver of mail: [`session`] takes mails by SMTP, [`store`] has them on the disk, [`forward`] hands them on.

pub mod forward;
pub mod session;
pub mod store;
