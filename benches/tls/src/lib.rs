//! What the measurements of TLS share.

pub mod load;
#[path = "../../peers/tls.rs"]
pub mod tls;
