//! The configuration while its sources are laid over one another.
//!
//! The file is laid first, then the environment, then the flags, so that the last one wins. A bad value is a
//! problem wherever it stands, also where a stronger source overrides it: whoever wrote it meant something.

use std::collections::BTreeMap;

use super::address::{Listen, Place};
use super::settings::{Config, Given, Setting};
use super::{namespace, password, tls};

#[derive(Default)]
pub(super) struct Draft {
    pub given: Given,
    /// What the variable for the clients' password holds.
    pub password: Option<String>,
    /// Where the value in effect came from, by setting; a default has no entry.
    pub origins: BTreeMap<&'static str, String>,
    /// All that is wrong so far, each in one line.
    pub problems: Vec<String>,
}

impl Draft {
    /// Puts a value in effect, or notes why not, with `origin` (a flag, a variable, or a file's line and key).
    pub fn apply(&mut self, setting: &'static Setting, text: &str, origin: String) {
        match (setting.set)(&mut self.given, text.trim()) {
            Ok(()) => {
                self.origins.insert(&setting.name, origin);
            }
            Err(why) => self.problems.push(format!("{origin}: {why}")),
        }
    }

    /// The validated configuration and where its values came from, or everything that is wrong.
    pub fn finish(mut self) -> Result<(Config, BTreeMap<&'static str, String>), Vec<String>> {
        let Given { config, namespaces } = &mut self.given;
        config.namespaces =
            namespace::resolve(namespaces, (config.rules(), &config.writing()), &mut self.problems);
        match password::resolve(config, self.password.take()) {
            Ok(password) => config.password = password,
            Err(why) => self.problems.push(why),
        }
        self.problems.extend(password::check_upstream(config).err());
        self.problems.extend(password::check_admin(config).err());
        tls::check(&self.given.config, &mut self.problems);
        self.check_ports();
        self.check_sentinels();
        if self.problems.is_empty() { Ok((self.given.config, self.origins)) } else { Err(self.problems) }
    }

    fn check_sentinels(&mut self) {
        let config = &self.given.config;
        let asks = matches!(config.upstream.place, Place::Sentinels(_));
        let (user, password) = (config.sentinel_username.is_some(), config.sentinel_password.is_some());
        for name in [("sentinel-username", user), ("sentinel-password", password)]
            .into_iter()
            .filter_map(|(name, given)| (given && !asks).then_some(name))
        {
            self.problems.push(format!(
                "{name}: is given, but upstream names no sentinels; write \
                 redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
            ));
        }
        if asks && user && !password {
            self.problems.push("sentinel-username: has no sentinel-password".to_owned());
        }
    }

    fn check_ports(&mut self) {
        // With TLS or without, a port is one port.
        let mut taken: Vec<String> = Vec::new();
        let config = &self.given.config;
        let of = |listen: &Listen| match listen.port() {
            Some(at) => (at.to_string(), at.port == 0),
            None => (listen.to_string(), false),
        };
        let listened = config.listen.iter().map(|listen| ("listen", of(listen)));
        let admin = config.admin.iter().map(|listen| ("admin", of(listen)));
        for (what, (listen, any)) in listened.chain(admin) {
            // Port 0 is another port each time.
            if !any && taken.contains(&listen) {
                self.problems.push(format!("{what}: {listen} is already listened on"));
            }
            taken.push(listen);
        }
    }
}
