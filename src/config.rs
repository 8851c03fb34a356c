//! Settings: from flags, environment and file, as typed, to one validated [`Config`].
//!
//! Whoever holds a `Config` need not check anything again: every value is in range, and the values go
//! together. No port is opened and nothing is connected to here; what is wrong is told all at once, with
//! the place where it was written. A password is never shown.
//!
//! `main` asks for an [`Invocation`]; every other room gets the `Config`, or a part of it.

mod address;
mod address_map;
mod changes;
mod choice;
mod cli;
mod cluster;
mod collector;
mod commands;
mod draft;
mod error;
mod file;
mod manual;
mod namespace;
mod password;
mod sentinel;
mod settings;
mod text;
mod tls;
mod value;
mod writing;

pub use crate::io::Address;
pub use crate::namespace::{Ack, OnConflict, OnUpdate, Tracking, TrackingForm, Writing};

pub use address::{HostPort, Listen, Place, Secret, Upstream};
pub use address_map::Mapped;
pub use changes::Change;
pub use choice::{Auth, CrossSlot, LogFormat, PresentAs, TokenFor, Writes};
pub use cli::{Invocation, Task, Top};
pub use cluster::Seeds;
pub use collector::Collector;
pub use error::ConfigError;
pub use manual::{completions, manual};
pub use namespace::Namespace;
pub use password::{READ as PASSWORD_READ, password_of, read_password};
pub use sentinel::Sentinels;
pub use settings::Config;
