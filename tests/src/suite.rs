//! Tests that share something, such as a guest: it is made for the first of them, and ends with the last.

use std::{future::Future, process::ExitCode, sync::Arc};

use anyhow::Result;
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{runtime::Runtime, sync::OnceCell};

/// Tests that share an `S`.
pub struct Suite<S> {
    trials: Vec<Trial>,
    story: Story<S>,
    shared: Arc<Shared<S>>,
}

type Setup<S> = Box<dyn Fn() -> BoxFuture<'static, Result<S>> + Send + Sync>;

/// What there is to tell of an `S`.
pub type Story<S> = fn(&S) -> String;

struct Shared<S> {
    runtime: Runtime,
    setup: Setup<S>,
    /// Made once; if that fails, it fails for all.
    value: OnceCell<Result<Arc<S>, String>>,
}

impl<S: Send + Sync + 'static> Suite<S> {
    /// A suite without tests. `setup` makes what they share.
    pub fn new<F>(setup: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<S>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let shared = Shared {
            runtime: runtime.expect("a runtime can be made"),
            setup: Box::new(move || Box::pin(setup())),
            value: OnceCell::new(),
        };
        Self {
            trials: Vec::new(),
            story: |_| String::new(),
            shared: Arc::new(shared),
        }
    }

    /// What is told where one of the tests that follow fails: logs, a console. Default: nothing.
    #[must_use]
    pub fn telling(mut self, story: Story<S>) -> Self {
        self.story = story;
        self
    }

    /// Adds a test. Its name is a sentence, as Rust writes names.
    pub fn test<F>(&mut self, name: &str, test: impl FnOnce(Arc<S>) -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let story = self.story;
        self.trials.push(Trial::test(name, move || {
            let run = async {
                let make = || async {
                    (shared.setup)()
                        .await
                        .map(Arc::new)
                        .map_err(|error| tell(&error))
                };
                let value = shared.value.get_or_init(make).await;
                let value = value.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
                tokio::spawn(test(Arc::clone(value))).await?
            };
            shared
                .runtime
                .block_on(run)
                .map_err(|error: anyhow::Error| {
                    // At once as well as at the end: whoever reads a long log finds it beside the test.
                    let text = tell(&error);
                    eprintln!("{text}");
                    if let Some(Ok(value)) = shared.value.get() {
                        eprintln!("{}", story(value));
                    }
                    Failed::from(text)
                })
        }));
    }

    /// Runs the tests that the command line chooses, one after the other unless it says otherwise.
    pub fn main(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(Some(1));
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        if let Some(shared) = Arc::into_inner(self.shared) {
            // What is shared may have to say goodbye to tasks.
            let _guard = shared.runtime.enter();
            drop(shared.value);
        }
        conclusion.exit_code()
    }
}

/// The error and its causes, a line each; no backtrace, which would show tokio.
fn tell(error: &anyhow::Error) -> String {
    error.chain().map(|cause| format!("{cause}\n")).collect()
}

impl<S> std::fmt::Debug for Suite<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suite")
            .field("trials", &self.trials.len())
            .finish_non_exhaustive()
    }
}
