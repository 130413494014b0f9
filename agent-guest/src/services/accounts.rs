//! `vbridge.guest.v1.Accounts`: passwords and keys of the guest's users.
//!
//! Neither is ever logged, nor repeated in an error.

use std::{io, path::PathBuf, sync::Arc};

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    AccountsAddAuthorizedKeysRequest, AccountsAddAuthorizedKeysResponse,
    AccountsListAuthorizedKeysRequest, AccountsListAuthorizedKeysResponse,
    AccountsRemoveAuthorizedKeysRequest, AccountsRemoveAuthorizedKeysResponse,
    AccountsSetPasswordRequest, AccountsSetPasswordResponse, accounts_server,
};

use super::aside;
use crate::{
    error::{self, Reason},
    limits::{MAX_AUTHORIZED_KEYS, MAX_PASSWORD},
    source::{
        Reader,
        authorized_keys::{self, KeysError},
        passwd::{self, User},
        program,
    },
};

/// Sets passwords that it reads (chpasswd(8), of shadow and of busybox). It asks PAM, keeps the files' locks, and knows
/// where passwords are.
const CHPASSWD: &str = "chpasswd";

/// Who sets passwords. Others set none.
pub(crate) trait Passwords: Send + Sync + 'static {
    /// Sets a user's password: as it is typed, or as crypt(5) has made it.
    fn set(&self, user: &str, password: &[u8], crypted: bool) -> io::Result<Result<(), String>>;
}

/// The guest's own.
#[derive(Debug)]
pub(crate) struct System;

impl Passwords for System {
    fn set(&self, user: &str, password: &[u8], crypted: bool) -> io::Result<Result<(), String>> {
        let line = [user.as_bytes(), b":", password, b"\n"].concat();
        // What it says is about the line's number or the user, and never the password.
        program::run(CHPASSWD, crypted.then_some("-e"), &line)
    }
}

/// The service.
pub(crate) struct Accounts {
    /// `/`, but for tests.
    root: PathBuf,
    passwords: Arc<dyn Passwords>,
    /// One change at a time: two that add keys to one file must not forget each other's. So at most one thread waits for
    /// a program or a home that does not answer.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Accounts {
    pub(crate) fn new(root: impl Into<PathBuf>, passwords: impl Passwords) -> Self {
        Self {
            root: root.into(),
            passwords: Arc::new(passwords),
            turn: Arc::default(),
        }
    }

    /// Does something for a user, when nobody else does.
    async fn with<T: Send + 'static>(
        &self,
        name: String,
        work: impl FnOnce(&std::path::Path, &User) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let root = self.root.clone();
        aside(move || {
            // Until it is done, even if the caller has gone.
            let _turn = turn;
            let user = passwd::named(&mut Reader::below(&root), &name).ok_or_else(|| {
                let message = format!("there is no user {name:?} in the guest's /etc/passwd");
                error::failure(Reason::NotFound, message)
            })?;
            work(&root, &user)
        })
        .await?
    }
}

#[tonic::async_trait]
impl accounts_server::Accounts for Accounts {
    async fn set_password(
        &self,
        request: Request<AccountsSetPasswordRequest>,
    ) -> Result<Response<AccountsSetPasswordResponse>, Status> {
        let request = request.into_inner();
        check_password(&request.password, request.crypted)
            .map_err(|why| error::invalid_field("password", why))?;
        let passwords = Arc::clone(&self.passwords);
        let set = self.with(request.user, move |_, user| {
            match passwords.set(&user.name, &request.password, request.crypted) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err(error::failure(
                    Reason::KernelRefused,
                    format!("the guest's {CHPASSWD} refuses the password: {why}"),
                )),
                Err(error) => Err(error::failure(
                    Reason::Unsupported,
                    format!("the guest's {CHPASSWD} can't be run: {error}"),
                )),
            }
        });
        set.await?;
        Ok(Response::new(AccountsSetPasswordResponse {}))
    }

    async fn list_authorized_keys(
        &self,
        request: Request<AccountsListAuthorizedKeysRequest>,
    ) -> Result<Response<AccountsListAuthorizedKeysResponse>, Status> {
        let user = request.into_inner().user;
        let keys = self.with(user, |root, user| {
            authorized_keys::list(root, user).map_err(|error| refused(&error))
        });
        let keys = keys.await?;
        Ok(Response::new(AccountsListAuthorizedKeysResponse { keys }))
    }

    async fn add_authorized_keys(
        &self,
        request: Request<AccountsAddAuthorizedKeysRequest>,
    ) -> Result<Response<AccountsAddAuthorizedKeysResponse>, Status> {
        let request = request.into_inner();
        error::at_most("keys", request.keys.len(), MAX_AUTHORIZED_KEYS)?;
        for (index, key) in request.keys.iter().enumerate() {
            authorized_keys::check(key)
                .map_err(|why| error::invalid_field(format!("keys[{index}]"), why))?;
        }
        let added = self.with(request.user, move |root, user| {
            authorized_keys::add(root, user, &request.keys, request.reset)
                .map_err(|error| refused(&error))
        });
        let added = count(added.await?);
        Ok(Response::new(AccountsAddAuthorizedKeysResponse { added }))
    }

    async fn remove_authorized_keys(
        &self,
        request: Request<AccountsRemoveAuthorizedKeysRequest>,
    ) -> Result<Response<AccountsRemoveAuthorizedKeysResponse>, Status> {
        let request = request.into_inner();
        error::at_most("keys", request.keys.len(), MAX_AUTHORIZED_KEYS)?;
        let removed = self.with(request.user, move |root, user| {
            authorized_keys::remove(root, user, &request.keys).map_err(|error| refused(&error))
        });
        let removed = count(removed.await?);
        Ok(Response::new(AccountsRemoveAuthorizedKeysResponse {
            removed,
        }))
    }
}

fn check_password(password: &[u8], crypted: bool) -> Result<(), String> {
    if password.len() > MAX_PASSWORD {
        return Err(format!(
            "has {} bytes, and {MAX_PASSWORD} is the most",
            password.len()
        ));
    }
    if password.is_empty() {
        return Err("must not be empty: lock the account instead".to_owned());
    }
    let is_bad = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0) || (crypted && *byte == b':');
    match password.iter().any(is_bad) {
        true => Err("must have no line ends, no NUL, and no colons if it is crypted".to_owned()),
        false => Ok(()),
    }
}

fn count(keys: usize) -> u32 {
    u32::try_from(keys).unwrap_or(u32::MAX)
}

fn refused(error: &KeysError) -> Status {
    let reason = match error {
        KeysError::Odd(..) => Reason::WrongFileType,
        KeysError::Io(_, error) => match error.kind() {
            io::ErrorKind::NotFound => Reason::FileNotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Reason::PermissionDenied
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoSpace,
            _ => Reason::KernelRefused,
        },
    };
    error::failure(reason, format!("the user's keys can't be reached: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, sync::Mutex};

    use accounts_server::Accounts as _;
    use tonic::Code;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==";

    /// Passwords that are only remembered, and refused if they are "bad".
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Passwords for Told {
        fn set(
            &self,
            user: &str,
            password: &[u8],
            crypted: bool,
        ) -> io::Result<Result<(), String>> {
            let password = String::from_utf8_lossy(password);
            match password.as_ref() {
                "bad" => return Ok(Err("exit status: 1 (too short)".to_owned())),
                "none" => return Err(io::ErrorKind::NotFound.into()),
                _ => {}
            }
            let told = format!("{user} {password} {crypted}");
            self.0.lock().unwrap().push(told);
            Ok(Ok(()))
        }
    }

    fn service() -> (tempfile::TempDir, Accounts, Told) {
        let dir = tempfile::tempdir().unwrap();
        let owner = fs::metadata(dir.path()).unwrap();
        let (uid, gid) = (owner.uid(), owner.gid());
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("home/web")).unwrap();
        let line = format!("web:x:{uid}:{gid}::/home/web:/bin/sh\n");
        fs::write(dir.path().join("etc/passwd"), line).unwrap();
        let told = Told::default();
        let accounts = Accounts::new(dir.path(), told.clone());
        (dir, accounts, told)
    }

    async fn set(accounts: &Accounts, user: &str, password: &[u8], crypted: bool) -> Code {
        let request = AccountsSetPasswordRequest {
            user: user.to_owned(),
            password: password.to_vec(),
            crypted,
        };
        match accounts.set_password(Request::new(request)).await {
            Ok(_) => Code::Ok,
            Err(status) => {
                let secret = String::from_utf8_lossy(password);
                assert!(
                    password.len() < 5 || !status.message().contains(&*secret),
                    "{status}"
                );
                status.code()
            }
        }
    }

    #[tokio::test]
    async fn a_password_is_set_for_a_user_that_there_is() {
        let (_dir, accounts, told) = service();
        assert_eq!(set(&accounts, "web", b"a:b c", false).await, Code::Ok);
        assert_eq!(set(&accounts, "web", b"$6$x$y", true).await, Code::Ok);
        assert_eq!(
            set(&accounts, "root", b"secret", false).await,
            Code::NotFound
        );
        assert_eq!(
            *told.0.lock().unwrap(),
            ["web a:b c false", "web $6$x$y true"]
        );
        assert_eq!(
            set(&accounts, "web", b"bad", false).await,
            Code::FailedPrecondition
        );
        assert_eq!(
            set(&accounts, "web", b"none", false).await,
            Code::Unimplemented
        );
    }

    #[tokio::test]
    async fn a_password_that_would_be_two_lines_is_refused_and_not_repeated() {
        let (_dir, accounts, told) = service();
        let long = [b'x'; MAX_PASSWORD + 1];
        for (password, crypted) in [
            (&b""[..], false),
            (b"secret\nroot:x", false),
            (b"secret\r", false),
            (b"secret\0", false),
            (b"secret:x", true),
            (&long, false),
        ] {
            let code = set(&accounts, "web", password, crypted).await;
            assert_eq!(code, Code::InvalidArgument, "{password:?}");
        }
        assert!(told.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn keys_are_added_listed_and_removed() {
        let (_dir, accounts, _) = service();
        let (user, keys) = ("web".to_owned(), vec![KEY.to_owned()]);
        let request = AccountsAddAuthorizedKeysRequest {
            user: user.clone(),
            keys: keys.clone(),
            reset: false,
        };
        let added = accounts.add_authorized_keys(Request::new(request)).await;
        assert_eq!(added.unwrap().into_inner().added, 1);
        let list = || {
            let user = user.clone();
            accounts.list_authorized_keys(Request::new(AccountsListAuthorizedKeysRequest { user }))
        };
        assert_eq!(list().await.unwrap().into_inner().keys, keys);
        let request = AccountsRemoveAuthorizedKeysRequest {
            user: user.clone(),
            keys,
        };
        let removed = accounts.remove_authorized_keys(Request::new(request)).await;
        assert_eq!(removed.unwrap().into_inner().removed, 1);
        assert!(list().await.unwrap().into_inner().keys.is_empty());
    }

    #[tokio::test]
    async fn one_bad_key_is_named_and_none_is_added() {
        let (dir, accounts, _) = service();
        let add = |keys: Vec<String>| {
            accounts.add_authorized_keys(Request::new(AccountsAddAuthorizedKeysRequest {
                user: "web".to_owned(),
                keys,
                reset: false,
            }))
        };
        let status = add(vec![KEY.to_owned(), "nonsense".to_owned()])
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("keys[1]: "), "{status}");
        let status = add(vec![KEY.to_owned(); MAX_AUTHORIZED_KEYS + 1])
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(!dir.path().join("home/web/.ssh").exists());
        fs::remove_dir(dir.path().join("home/web")).unwrap();
        let status = add(vec![KEY.to_owned()]).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
}
