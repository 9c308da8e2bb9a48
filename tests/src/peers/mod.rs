//! The two ends of a federation connection.

mod openssl;

pub use openssl::{OpensslClient, OpensslServer, Session, TlsVersion};
