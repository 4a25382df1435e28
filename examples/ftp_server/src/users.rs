//! Who may come in, and what for.

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub struct User {
    pub(crate) name: String,
    secret: Secret,
    pub(crate) may_write: bool,
}

enum Secret {
    /// Of a password that was given in clear: as long as any other, so that comparing takes as long.
    Digest([u8; 32]),
    /// By argon2, as a PHC string.
    Hash(String),
}

impl User {
    /// Of `NAME:PASSWORD` or `NAME:PASSWORD:rw`, where PASSWORD may be a hash. It tells no more of a wrong one than that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, may_write) = text.strip_suffix(":rw").map_or((text, false), |text| (text, true));
        let (name, password) = text.split_once(':').ok_or("a user is NAME:PASSWORD or NAME:PASSWORD:rw")?;
        if name.is_empty() || password.is_empty() {
            return Err("a user has a name and a password");
        }
        let secret = match password.starts_with("$argon2") {
            true if !PasswordHash::new(password).is_ok_and(|hash| hash.hash.is_some()) => {
                return Err("this hash of a password is none of argon2");
            }
            true => Secret::Hash(password.into()),
            false => Secret::Digest(Sha256::digest(password).into()),
        };
        Ok(Self { name: name.into(), secret, may_write })
    }

    /// A hash takes long, by intention.
    pub(crate) fn knows(&self, password: &str) -> bool {
        match &self.secret {
            Secret::Digest(digest) => digest.ct_eq(Sha256::digest(password).as_slice()).into(),
            Secret::Hash(hash) => {
                PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            }
        }
    }
}
