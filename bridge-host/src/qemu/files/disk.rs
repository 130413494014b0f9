//! A guest's files for tests: an agent that opens, reads, writes and closes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::qemu::{
    failure::Failure,
    script::{Script, no},
};

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    open: HashMap<i64, (String, usize)>,
    next: i64,
}

/// A guest's files.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn with(path: &str, content: &[u8]) -> Self {
        let disk = Self::default();
        let mut state = disk.0.lock().unwrap();
        state.files.insert(path.to_owned(), content.to_vec());
        drop(state);
        disk
    }

    pub(super) fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().files.get(path).cloned()
    }

    /// Files that are open.
    pub(super) fn open(&self) -> usize {
        self.0.lock().unwrap().open.len()
    }

    pub(super) fn script(&self) -> Arc<Script> {
        let disk = self.clone();
        Script::new(move |command, arguments| disk.execute(command, arguments))
    }

    fn execute(&self, command: &str, arguments: &Value) -> Result<Value, Failure> {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        if command == "guest-file-open" {
            let path = arguments["path"].as_str().unwrap().to_owned();
            let mode = arguments["mode"].as_str().unwrap();
            if matches!(mode, "r" | "r+") && !state.files.contains_key(&path) {
                let said = format!("failed to open file '{path}': No such file or directory");
                return Err(no(command, &said));
            }
            let file = state.files.entry(path.clone()).or_default();
            if mode == "w" {
                file.clear();
            }
            let at = if mode == "a" { file.len() } else { 0 };
            state.next += 1;
            state.open.insert(state.next, (path, at));
            return Ok(json!(state.next));
        }
        let handle = arguments["handle"].as_i64().unwrap();
        if command == "guest-file-close" {
            return match state.open.remove(&handle) {
                Some(_) => Ok(json!({})),
                None => Err(no(command, "handle has not been found")),
            };
        }
        let (path, at) = state.open.get_mut(&handle).unwrap();
        let file = state.files.get_mut(path).unwrap();
        match command {
            "guest-file-read" => {
                let count = usize::try_from(arguments["count"].as_u64().unwrap()).unwrap();
                let from = (*at).min(file.len());
                let bytes = &file[from..(from + count).min(file.len())];
                *at = from + bytes.len();
                let (count, eof) = (bytes.len(), bytes.is_empty());
                Ok(json!({ "count": count, "buf-b64": STANDARD.encode(bytes), "eof": eof }))
            }
            "guest-file-write" => {
                let bytes = STANDARD
                    .decode(arguments["buf-b64"].as_str().unwrap())
                    .unwrap();
                // Never all at once, as the agent may.
                let bytes = &bytes[..bytes.len().div_ceil(2)];
                if file.len() < *at + bytes.len() {
                    file.resize(*at + bytes.len(), 0);
                }
                file[*at..*at + bytes.len()].copy_from_slice(bytes);
                *at += bytes.len();
                Ok(json!({ "count": bytes.len(), "eof": false }))
            }
            "guest-file-seek" => {
                let offset = usize::try_from(arguments["offset"].as_u64().unwrap()).unwrap();
                let start = if arguments["whence"] == 2 {
                    file.len()
                } else {
                    0
                };
                *at = start + offset;
                Ok(json!({ "position": *at, "eof": false }))
            }
            "guest-file-flush" => Ok(json!({})),
            _ => Err(no(command, "no")),
        }
    }
}
