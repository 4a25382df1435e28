//! Who may log in, and may do what.

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub struct User {
    pub(crate) name: String,
    secret: Secret,
    pub(crate) may_write: bool,
}

enum Secret {
    /// The hash of a password given in the clear: they all have one length, so that comparing takes the same time.
    Digest([u8; 32]),
    /// A hash by argon2, as a PHC string.
    Hash(String),
}

impl User {
    /// Parses `NAME:PASSWORD` or `NAME:PASSWORD:rw`, where PASSWORD may be a hash.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating any of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, may_write) = text.strip_suffix(":rw").map_or((text, false), |text| (text, true));
        let (name, password) = text.split_once(':').ok_or("a user is NAME:PASSWORD or NAME:PASSWORD:rw")?;
        if name.is_empty() || password.is_empty() {
            return Err("a user needs a name and a password");
        }
        let secret = match password.starts_with("$argon2") {
            true if !PasswordHash::new(password).is_ok_and(|hash| hash.hash.is_some()) => {
                return Err("this is not a hash by argon2");
            }
            true => Secret::Hash(password.into()),
            false => Secret::Digest(Sha256::digest(password).into()),
        };
        Ok(Self { name: name.into(), secret, may_write })
    }

    /// A hash takes long, on purpose.
    pub(crate) fn knows(&self, password: &str) -> bool {
        match &self.secret {
            Secret::Digest(digest) => digest.ct_eq(Sha256::digest(password).as_slice()).into(),
            Secret::Hash(hash) => {
                PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            }
        }
    }
}
