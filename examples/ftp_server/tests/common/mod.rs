//! What these tests share: a session at a server on the simulated network.
#![allow(dead_code)] // each uses a part of it

#[path = "../../../../tests/common/folder.rs"]
mod folder;

pub(crate) use folder::Folder;
use ftp_server::{Control, Ftp, Settings, User};
use mainspring::{
    Config,
    testing::{Actor, Scene},
};
use std::{fs, path::Path, time::Duration};

/// With a user who may write.
pub fn settings(root: &Path) -> Settings {
    let user = User::parse("user:12345:rw").expect("a user");
    Settings { users: vec![user.into()], ..Settings::new(root).expect("a folder") }
}

pub struct Session {
    pub scene: Scene<Ftp>,
    pub control: Actor,
    pub(crate) root: Folder,
}

impl Session {
    pub(crate) fn begin(root: Folder) -> Self {
        let set = settings(&root.0);
        Self::begin_with(root, set)
    }

    pub(crate) fn begin_with(root: Folder, set: Settings) -> Self {
        let mut scene = Scene::with_config(1, Ftp::new(set), Config::new().linger_max(Duration::from_secs(300)));
        scene.net().listen("10.0.0.1:21", Control::default).expect("a free port");
        let control = scene.dials("10.0.0.1:21");
        scene.hears(control, "220 ready.\r\n");
        Self { scene, control, root }
    }

    pub fn log_in(&mut self) {
        let heard = self.asks("USER user\r\nPASS 12345\r\nTYPE I");
        assert_eq!(heard, "331 Now the password.\r\n230 Welcome.\r\n200 Binary.\r\n");
    }

    /// Somebody else, at the same server.
    pub fn another(mut self) -> Self {
        let control = self.scene.dials("10.0.0.1:21");
        let mut other = Self { control, ..self };
        other.hears();
        other.log_in();
        other
    }

    pub fn hears(&mut self) -> String {
        String::from_utf8(self.scene.settles().takes(self.control)).expect("text")
    }

    pub fn asks(&mut self, line: &str) -> String {
        self.asks_bytes(format!("{line}\r\n").as_bytes())
    }

    pub fn asks_bytes(&mut self, bytes: &[u8]) -> String {
        self.scene.says(self.control, bytes);
        self.hears()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.path(name)).expect("it is there")
    }
}

/// Of the last line.
pub fn code_of(heard: &str) -> &str {
    heard.lines().last().and_then(|line| line.get(..3)).unwrap_or_default()
}
