//! Servers whose clients have sessions: FTP, which opens a second connection for each transfer; a receiver of mail; a
//! load balancer. Each is a protocol and the state that its sessions share; the programs are in `bin/`.

pub mod balancer;
pub mod ftp;
pub mod smtp;
