//! `Accounts`: passwords and keys of the guest's users. Neither is ever logged, nor repeated in an error.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;
use vbridge_api::guest::v1 as api;

use super::{
    agent::Agent,
    failure::{Failure, Meaning},
    refusal::{Reason, at_most, invalid, shown},
};

/// Bytes of a password, as `accounts.proto` promises.
const MAX_PASSWORD: usize = 512;

/// Keys in one request, and bytes of one and of all, as `accounts.proto` promises.
const MAX_KEYS: usize = 1024;
const MAX_KEY: usize = 16 * 1024;
const MAX_KEYS_TOTAL: usize = 1024 * 1024;

pub(super) async fn set_password(
    agent: Arc<Agent>,
    request: api::AccountsSetPasswordRequest,
) -> Result<api::AccountsSetPasswordResponse, Status> {
    check_user(&request.user)?;
    check_password(&request.password, request.crypted).map_err(|why| invalid("password", why))?;
    let arguments = json!({
        "username": request.user,
        "password": STANDARD.encode(&request.password),
        "crypted": request.crypted,
    });
    let set = agent.tell("guest-set-user-password", arguments).await;
    set.map_err(|failure| of_user(&failure, &request.user))?;
    Ok(api::AccountsSetPasswordResponse {})
}

fn check_user(user: &str) -> Result<(), Status> {
    let is_bad = |c: char| c.is_control() || matches!(c, ':' | '/');
    match user.is_empty() || user.len() > 256 || user.contains(is_bad) {
        true => Err(invalid(
            "user",
            "must have 1 to 256 bytes, without colons, slashes and control characters",
        )),
        false => Ok(()),
    }
}

fn check_password(password: &[u8], crypted: bool) -> Result<(), String> {
    if password.is_empty() || password.len() > MAX_PASSWORD {
        let len = password.len();
        return Err(format!(
            "has {len} bytes, and must have 1 to {MAX_PASSWORD}"
        ));
    }
    let is_bad = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0) || (crypted && *byte == b':');
    match password.iter().any(is_bad) {
        true => Err("must have no line ends, no NUL, and no colons if it is crypted".to_owned()),
        false => Ok(()),
    }
}

#[derive(Debug, Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<String>,
}

pub(super) async fn list_keys(
    agent: Arc<Agent>,
    request: api::AccountsListAuthorizedKeysRequest,
) -> Result<api::AccountsListAuthorizedKeysResponse, Status> {
    check_user(&request.user)?;
    let keys = keys(&agent, &request.user).await?;
    let mut total = 0_usize;
    let keys = keys.into_iter().take_while(|key| {
        total = total.saturating_add(key.len());
        total <= MAX_KEYS_TOTAL
    });
    Ok(api::AccountsListAuthorizedKeysResponse {
        keys: keys.collect(),
    })
}

pub(super) async fn add_keys(
    agent: Arc<Agent>,
    request: api::AccountsAddAuthorizedKeysRequest,
) -> Result<api::AccountsAddAuthorizedKeysResponse, Status> {
    check_user(&request.user)?;
    check_keys(&request.keys)?;
    let before = known(&agent, &request.user).await?;
    let arguments = json!({
        "username": request.user,
        "keys": request.keys,
        "reset": request.reset,
    });
    change(
        &agent,
        "guest-ssh-add-authorized-keys",
        arguments,
        &request.user,
    )
    .await?;
    let asked: HashSet<String> = request.keys.into_iter().collect();
    Ok(api::AccountsAddAuthorizedKeysResponse {
        added: count(asked.difference(&before).count()),
    })
}

pub(super) async fn remove_keys(
    agent: Arc<Agent>,
    request: api::AccountsRemoveAuthorizedKeysRequest,
) -> Result<api::AccountsRemoveAuthorizedKeysResponse, Status> {
    check_user(&request.user)?;
    at_most("keys", request.keys.len(), MAX_KEYS)?;
    let before = known(&agent, &request.user).await?;
    let asked: HashSet<String> = request.keys.iter().cloned().collect();
    let removed = count(asked.intersection(&before).count());
    if removed > 0 {
        let arguments = json!({ "username": request.user, "keys": request.keys });
        change(
            &agent,
            "guest-ssh-remove-authorized-keys",
            arguments,
            &request.user,
        )
        .await?;
    }
    Ok(api::AccountsRemoveAuthorizedKeysResponse { removed })
}

fn check_keys(keys: &[String]) -> Result<(), Status> {
    at_most("keys", keys.len(), MAX_KEYS)?;
    for (index, key) in keys.iter().enumerate() {
        let field = || format!("keys[{index}]");
        if key.len() > MAX_KEY {
            let description = format!("has {} bytes, and {MAX_KEY} is the most", key.len());
            return Err(invalid(&field(), description));
        }
        // What the file takes for a comment is no key, and a second line would be a second one.
        let is_line = !key.contains(['\n', '\r', '\0']);
        if !is_line || key.trim().is_empty() || key.trim_start().starts_with('#') {
            return Err(invalid(&field(), "must be one line of authorized_keys(5)"));
        }
    }
    let total = keys.iter().map(String::len).sum::<usize>();
    match total > MAX_KEYS_TOTAL {
        true => {
            let description = format!("have {total} bytes, and {MAX_KEYS_TOTAL} is the most");
            Err(invalid("keys", description))
        }
        false => Ok(()),
    }
}

/// A user's keys now. One without the file has none.
async fn known(agent: &Agent, user: &str) -> Result<HashSet<String>, Status> {
    Ok(keys(agent, user).await?.into_iter().collect())
}

async fn keys(agent: &Agent, user: &str) -> Result<Vec<String>, Status> {
    let arguments = json!({ "username": user });
    let answer: Result<Keys, _> = agent.ask("guest-ssh-get-authorized-keys", arguments).await;
    match answer {
        Ok(answer) => Ok(answer.keys),
        Err(failure) if failure.meaning() == Some(Meaning::NotFound) => Ok(Vec::new()),
        Err(failure) => Err(of_user(&failure, user)),
    }
}

async fn change(agent: &Agent, command: &str, arguments: Value, user: &str) -> Result<(), Status> {
    let changed = agent.tell(command, arguments).await;
    changed.map_err(|failure| of_user(&failure, user))
}

/// A user that is not there is told as such; the agent has but words for it.
fn of_user(failure: &Failure, user: &str) -> Status {
    let is_unknown = |said: &str| {
        let said = said.to_ascii_lowercase();
        said.contains("failed to lookup user") || said.contains("user was not found")
    };
    match failure.said() {
        Some(said) if is_unknown(said) => {
            let message = format!("there is no user {} in the guest", shown(user));
            Reason::NotFound.status(message)
        }
        _ => failure.status(),
    }
}

fn count(keys: usize) -> u32 {
    u32::try_from(keys).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::accounts_client::AccountsClient;

    use super::*;
    use crate::qemu::script::{Script, no};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==";

    #[tokio::test]
    async fn a_password_goes_in_base64_and_into_no_error() {
        let script = Script::fixed([("guest-set-user-password", json!({}))]);
        let mut client = AccountsClient::new(script.serve());
        let request = |password: &[u8], crypted| api::AccountsSetPasswordRequest {
            user: "web".to_owned(),
            password: password.to_vec(),
            crypted,
        };
        client.set_password(request(b"a:b", false)).await.unwrap();
        let sent = script.last("guest-set-user-password");
        assert_eq!(
            sent,
            json!({ "username": "web", "password": "YTpi", "crypted": false })
        );
        for (password, crypted) in [
            (&b""[..], false),
            (b"secret\nroot", false),
            (b"secret\0", false),
            (b"secret:", true),
            (&[b'x'; MAX_PASSWORD + 1], false),
        ] {
            let status = client
                .set_password(request(password, crypted))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(!status.message().contains("secret"));
        }
        assert_eq!(script.commands().len(), 1);
        let mut nobody = request(b"secret", false);
        nobody.user = "a:b".to_owned();
        let status = client.set_password(nobody).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn keys_that_were_there_before_do_not_count_as_added() {
        let script = Script::fixed([
            (
                "guest-ssh-get-authorized-keys",
                json!({ "keys": [KEY, KEY] }),
            ),
            ("guest-ssh-add-authorized-keys", json!({})),
            ("guest-ssh-remove-authorized-keys", json!({})),
        ]);
        let mut client = AccountsClient::new(script.serve());
        let keys = vec![
            KEY.to_owned(),
            "ssh-rsa B".to_owned(),
            "ssh-rsa B".to_owned(),
        ];
        let (user, reset) = ("web".to_owned(), true);
        let request = api::AccountsAddAuthorizedKeysRequest {
            user: user.clone(),
            keys: keys.clone(),
            reset,
        };
        let added = client.add_authorized_keys(request).await.unwrap();
        assert_eq!(added.into_inner().added, 1);
        let request = api::AccountsRemoveAuthorizedKeysRequest {
            user: user.clone(),
            keys,
        };
        let removed = client.remove_authorized_keys(request).await.unwrap();
        assert_eq!(removed.into_inner().removed, 1);
        let request = api::AccountsListAuthorizedKeysRequest { user };
        let listed = client.list_authorized_keys(request).await.unwrap();
        assert_eq!(listed.into_inner().keys, [KEY, KEY]);
    }

    #[tokio::test]
    async fn a_user_without_a_file_has_no_keys_and_one_that_is_not_there_is_not_found() {
        for (said, code) in [
            ("open authorized_keys: No such file or directory", Code::Ok),
            (
                "failed to lookup user 'web': 'No such user'",
                Code::NotFound,
            ),
            ("failed to lookup user 'web'", Code::NotFound),
            ("something else", Code::FailedPrecondition),
        ] {
            let script = Script::new(move |command, _| Err(no(command, said)));
            let mut client = AccountsClient::new(script.serve());
            let user = "web".to_owned();
            let request = api::AccountsListAuthorizedKeysRequest { user };
            match client.list_authorized_keys(request).await {
                Ok(listed) => assert_eq!((listed.into_inner().keys.len(), code), (0, Code::Ok)),
                Err(status) => assert_eq!(status.code(), code, "{said}"),
            }
        }
    }

    #[test]
    fn what_is_no_line_of_the_file_is_named() {
        for wrong in ["", " ", "#x", "a\nb", "a\0"] {
            let status = check_keys(&[KEY.to_owned(), wrong.to_owned()]).unwrap_err();
            assert!(status.message().starts_with("keys[1]: "), "{wrong:?}");
        }
        assert!(check_keys(&vec![KEY.to_owned(); MAX_KEYS + 1]).is_err());
        assert!(check_keys(&vec!["x".repeat(MAX_KEY); 65]).is_err());
        assert!(check_keys(&["x".repeat(MAX_KEY + 1)]).is_err());
    }
}
