//! The loop: keys and figures come, and the screen is drawn.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::App;
use super::draw::draw;
use super::source::{EVERY, Seen, Source};
use crate::config::Top;

/// How long it waits for a key before it looks for figures.
const TICK: Duration = Duration::from_millis(200);

type Told = Result<Seen, String>;

/// Shows the sidecar on this terminal until somebody quits. Errors: there is no terminal, or it is gone.
pub fn watch(top: &Top) -> Result<(), String> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err("there is no terminal: use nearside top --once".to_owned());
    }
    let (say, heard) = sync_channel(1);
    let source = Source::new(top);
    let looks = std::thread::Builder::new().name("looks".to_owned()).spawn(move || look(source, &say));
    looks.map_err(|error| error.to_string())?;
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let shown = show(&mut terminal, &mut App::new(top.at.to_string()), &heard);
    ratatui::restore();
    shown.map_err(|error| format!("the terminal: {error}"))
}

/// Looks again and again, until nobody listens.
fn look(mut source: Source, say: &SyncSender<Told>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(say.send(Err(error.to_string()))),
    };
    runtime.block_on(async {
        while say.send(source.look().await).is_ok() {
            tokio::time::sleep(EVERY).await;
        }
    });
}

fn show(terminal: &mut DefaultTerminal, app: &mut App, heard: &Receiver<Told>) -> io::Result<()> {
    loop {
        heard.try_iter().for_each(|told| app.hear(told));
        // The terminal's size is taken anew each time.
        terminal.draw(|frame| draw(frame, app))?;
        if event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && quits(&key)
        {
            return Ok(());
        }
    }
}

fn quits(key: &KeyEvent) -> bool {
    let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (interrupts || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_quits() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        assert!(quits(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(quits(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(quits(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!quits(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
    }
}
