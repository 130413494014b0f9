//! Passwords and keys.

use std::sync::Arc;

use anyhow::{Result, ensure};
use vbridge_api::guest::v1::{
    AccountsAddAuthorizedKeysRequest, AccountsListAuthorizedKeysRequest,
    AccountsRemoveAuthorizedKeysRequest, AccountsSetPasswordRequest,
    accounts_client::AccountsClient,
};

use crate::world::{USER, World, refused};

/// Found nowhere else.
const PASSWORD: &str = "Sesame-4711-oeffne-dich";

/// What crypt(3) has made of the password is what it makes of it again.
const VERIFY: &str = r#"perl -e 'my $hash = (getpwnam("ada"))[1]; print crypt($ENV{P}, $hash) eq $hash ? "right" : "wrong"'"#;

pub(crate) async fn password(world: Arc<World>) -> Result<()> {
    let mut accounts = AccountsClient::new(world.channel().await?);
    let hash = "getent shadow ada | cut -d: -f2";
    let before = world.shell(hash).await?;
    let request = AccountsSetPasswordRequest {
        user: USER.into(),
        password: PASSWORD.into(),
        crypted: false,
    };
    accounts.set_password(request).await?;
    let after = world.shell(hash).await?;
    ensure!(
        after != before && after.starts_with('$'),
        "{before:?} {after:?}"
    );
    let verify = |password: &str| format!("P='{password}' {VERIFY}");
    ensure!(world.shell(&verify(PASSWORD)).await? == "right");
    ensure!(world.shell(&verify("Sesame")).await? == "wrong");
    // One that is hashed already is taken as it is.
    let request = AccountsSetPasswordRequest {
        user: USER.into(),
        password: after.clone().into(),
        crypted: true,
    };
    accounts.set_password(request).await?;
    ensure!(world.shell(hash).await? == after);
    let request = AccountsSetPasswordRequest {
        user: "nobody-there".into(),
        password: PASSWORD.into(),
        crypted: false,
    };
    refused(accounts.set_password(request).await, "NOT_FOUND")?;
    // Nobody has written it down. What asks for it is no process of the journal's.
    let search = format!(
        "journalctl --sync; journalctl --all --output export | grep -ac '{PASSWORD}'; \
         grep -rac '{PASSWORD}' /var/log | grep -vc ':0$'; true"
    );
    ensure!(world.shell(&search).await? == "0\n0");
    let log = world.bridge.read().await.log();
    ensure!(!log.contains(PASSWORD), "{log}");
    Ok(())
}

pub(crate) async fn keys(world: Arc<World>) -> Result<()> {
    let mut accounts = AccountsClient::new(world.channel().await?);
    let keys: Vec<String> = [
        "AAAAC3NzaC1lZDI1NTE5AAAAINFHzH+/hU9ayrK/e8rzIDLx9nlxHpp+7GTKDT4nascZ one",
        "AAAAC3NzaC1lZDI1NTE5AAAAIDWQ8U04bTqSI+tUvIeT9o3fHcuUFT8AjtFFL1CrrUEZ two",
    ]
    .map(|key| format!("ssh-ed25519 {key}"))
    .into();
    let add = AccountsAddAuthorizedKeysRequest {
        user: USER.into(),
        keys: keys.clone(),
        reset: true,
    };
    ensure!(
        accounts
            .add_authorized_keys(add.clone())
            .await?
            .into_inner()
            .added
            == 2
    );
    let again = AccountsAddAuthorizedKeysRequest {
        reset: false,
        ..add
    };
    ensure!(
        accounts
            .add_authorized_keys(again)
            .await?
            .into_inner()
            .added
            == 0
    );
    let stat = "stat -c '%U %a' /home/ada/.ssh /home/ada/.ssh/authorized_keys";
    ensure!(world.shell(stat).await? == "ada 700\nada 600");
    let list = AccountsListAuthorizedKeysRequest { user: USER.into() };
    let listed = accounts
        .list_authorized_keys(list.clone())
        .await?
        .into_inner();
    ensure!(listed.keys == keys, "{listed:?}");
    let remove = AccountsRemoveAuthorizedKeysRequest {
        user: USER.into(),
        keys: vec![keys[0].clone()],
    };
    ensure!(
        accounts
            .remove_authorized_keys(remove)
            .await?
            .into_inner()
            .removed
            == 1
    );
    let listed = accounts.list_authorized_keys(list).await?.into_inner();
    ensure!(listed.keys == keys[1..], "{listed:?}");
    Ok(())
}
