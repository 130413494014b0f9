//! Files, up and down.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use vbridge_tests::{content, fixture::story};

use crate::{World, client::Ask};

/// The digest of nothing.
const NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// The digest of `hello`.
const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";

async fn info(world: &World, path: &str) -> Result<Value> {
    let path = path.replace('/', "%2F").replace(' ', "+");
    let answer = Ask::get(format!("file/info?path={path}"))
        .send(world.address())
        .await?;
    Ok(answer.data()?.clone())
}

#[test]
fn a_file_comes_back_as_it_was_sent_whatever_its_size() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a file");
        let path = path.to_str().context("no text")?;
        for size in [0, 1, 128 * 1024, 300 * 1024 + 7] {
            let sent = content::bytes(3, 0, size);
            let upload = json!({
                "path": path, "content": STANDARD.encode(&sent), "mode": "0640", "overwrite": true,
            });
            let answer = Ask::post("file/upload", &upload)
                .send(world.address())
                .await?;
            let uploaded = answer.data()?.clone();
            ensure!(
                uploaded["path"] == path && uploaded["size"] == size,
                "{uploaded}"
            );
            ensure!(fs::read(path)? == sent, "{size} bytes are others");
            ensure!(fs::metadata(path)?.permissions().mode() & 0o7777 == 0o640);
            let (mut back, mut md5) = (Vec::new(), Value::Null);
            // As the API's design has it: piece by piece, and then the digest of all.
            while back.len() < size {
                let part = json!({"path": path, "offset": back.len(), "length": 256 * 1024});
                let answer = Ask::post("file/download", &part)
                    .send(world.address())
                    .await?;
                let part = answer.data()?;
                let bytes = STANDARD.decode(part["content"].as_str().context("no content")?)?;
                ensure!(part["size"] == bytes.len() && !bytes.is_empty(), "{part}");
                ensure!(part["total_size"] == size, "{part}");
                md5 = part["md5"].clone();
                back.extend_from_slice(&bytes);
            }
            ensure!(back == sent, "other bytes came back");
            let told = info(&world, path).await?;
            ensure!(told["md5"] == uploaded["md5"], "{told}");
            // Where there was one piece, its digest is the file's.
            ensure!(
                size == 0 || size > 256 * 1024 || md5 == told["md5"],
                "{md5}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_file_that_is_there_is_replaced_only_if_that_is_wanted() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("config");
        fs::write(&path, "old")?;
        let mut upload = json!({"path": path, "content": "aGVsbG8="});
        let answer = Ask::post("file/upload", &upload)
            .send(world.address())
            .await?;
        let data = answer.failed(200, 1002, "FILE_OPERATION_FAILED")?;
        ensure!(data["reason"] == "FILE_EXISTS", "{data}");
        ensure!(fs::read(&path)? == b"old");
        upload["overwrite"] = true.into();
        // By number, and this machine's user may be anybody.
        upload["owner"] = rustix::process::geteuid().as_raw().to_string().into();
        upload["group"] = rustix::process::getegid().as_raw().to_string().into();
        let answer = Ask::post("file/upload", &upload)
            .send(world.address())
            .await?;
        ensure!(answer.data()?["md5"] == HELLO, "{answer:?}");
        ensure!(fs::read(&path)? == b"hello");
        Ok(())
    });
}

#[test]
fn what_is_at_a_path_is_told_and_nothing_is_an_answer_too() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let base = dir.path().to_str().context("no text")?;
        let file = format!("{base}/file");
        fs::write(&file, "hello")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4751))?;
        std::os::unix::fs::symlink("file", format!("{base}/link"))?;
        for path in [&file, &format!("{base}/link")] {
            let told = info(&world, path).await?;
            ensure!(told["exists"] == true && told["type"] == "file", "{told}");
            ensure!(told["size"] == 5 && told["mode"] == "4751", "{told}");
            ensure!(told["md5"] == HELLO && told["path"] == **path, "{told}");
            ensure!(
                told["owner"].is_string() && told["group"].is_string(),
                "{told}"
            );
            ensure!(told["mtime"].is_i64(), "{told}");
        }
        let told = info(&world, base).await?;
        ensure!(
            told["type"] == "directory" && told["md5"].is_null(),
            "{told}"
        );
        let nothing = format!("{base}/nothing");
        let told = info(&world, &nothing).await?;
        ensure!(told == json!({"path": nothing, "exists": false}), "{told}");
        Ok(())
    });
}

#[test]
fn a_download_has_its_bounds_and_what_can_not_be_read_is_told() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("large");
        fs::write(&path, vec![7; 100_000])?;
        let whole = Ask::post("file/download", &json!({"path": path}));
        let answer = whole.send(world.address()).await?;
        ensure!(answer.data()?["size"] == 65_536, "{:?}", answer.status);
        let beyond = json!({"path": path, "offset": 100_000, "length": 10});
        let answer = Ask::post("file/download", &beyond)
            .send(world.address())
            .await?;
        let data = answer.data()?;
        ensure!(
            data["size"] == 0 && data["content"] == "" && data["md5"] == NOTHING,
            "{data}"
        );
        let too_much = json!({"path": path, "length": 1_048_577});
        let answer = Ask::post("file/download", &too_much)
            .send(world.address())
            .await?;
        answer.failed(400, 2001, "INVALID_PARAMS")?;
        let missing = json!({"path": "/no/such/file"});
        let answer = Ask::post("file/download", &missing)
            .send(world.address())
            .await?;
        answer.failed(404, 3002, "FILE_NOT_FOUND")?;
        let folder = json!({"path": dir.path()});
        let answer = Ask::post("file/download", &folder)
            .send(world.address())
            .await?;
        answer.failed(200, 1002, "FILE_OPERATION_FAILED")?;
        Ok(())
    });
}
