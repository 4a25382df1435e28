//! What is built from the contract, as a program would do it: a client that comes back, a server that answers requests.

mod reconnect;
mod requests;

pub use reconnect::{Keep, Reconnect};
pub use requests::{Answer, RequestHandler};
