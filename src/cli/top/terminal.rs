//! The terminal: taken, and always restored. A signal ends the drawing loop; a panic is reported after the
//! terminal is restored.

use std::io::{self, stdout};
use std::thread;

use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use nix::sys::signal::{Signal, raise};
use ratatui::{DefaultTerminal, Frame};

pub(super) struct Screen(DefaultTerminal);

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| drop(ratatui::try_restore()))
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }

    /// Restores the terminal, stops this process until the shell continues it, and takes the terminal again
    /// (Ctrl-Z, `fg`).
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.0.show_cursor()?;
        ratatui::try_restore()?;
        raise(Signal::SIGTSTP)?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.0.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The hook of panics has restored the terminal, and leaving the alternate screen again would move the
        // cursor into the report. Errors are ignored, because without a terminal they cannot be shown.
        if !thread::panicking() {
            drop(ratatui::try_restore());
        }
    }
}
