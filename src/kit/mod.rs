//! What is made of the contract, as a program would: a client that comes back, a server that answers requests.

mod reconnect;
mod requests;

pub use reconnect::{Keep, Reconnect};
pub use requests::{Answer, RequestHandler};
