//! HTTP/2 on sessions: one hyper connection a session, one task a call.
//!
//! This is hyper's server itself, not tonic's: tonic has no knob for the send buffer of a stream ([`STREAM_SEND_BUFFER`]),
//! which is what bounds a client that never reads, and needs a router that the agent has no use for ([`crate::router`]).

use std::{convert::Infallible, future::Future, pin::pin};

use http::Request;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tonic::body::Body;
use vbridge_link::Session;

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    limits::{
        CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CONCURRENT_STREAMS,
        MAX_FRAME_SIZE, MAX_HEADER_LIST, MAX_LOCAL_RESETS, MAX_PENDING_RESETS, SHUTDOWN_GRACE,
        STREAM_SEND_BUFFER, STREAM_WINDOW,
    },
    request::Upload,
    router::{CallFuture, Router},
};

/// All sessions of an agent.
pub(crate) struct Sessions {
    router: Router,
    http: http2::Builder<Spawn>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    /// Each session holds a receiver: it is told to stop, and its end is seen.
    stop: watch::Sender<bool>,
}

impl Sessions {
    pub(crate) fn new(router: Router, #[cfg(feature = "tls")] tls: Option<Tls>) -> Self {
        let mut http = http2::Builder::new(Spawn);
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_frame_size(MAX_FRAME_SIZE)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS)
            .max_send_buf_size(STREAM_SEND_BUFFER)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // Nobody needs it in gRPC, and it would be formatted for every answer.
            .auto_date_header(false);
        Self {
            router,
            http,
            #[cfg(feature = "tls")]
            tls,
            stop: watch::Sender::new(false),
        }
    }

    /// Serves a session in a task of its own, until it ends.
    pub(crate) fn serve(&self, session: Session) {
        let serving = Serving {
            http: self.http.clone(),
            router: self.router.clone(),
            stop: self.stop.subscribe(),
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls.clone() {
            tokio::spawn(async move {
                let mut stop = serving.stop.clone();
                tokio::select! {
                    session = tls.accept(session) => if let Some(session) = session {
                        serving.run(session).await;
                    },
                    () = stopped(&mut stop) => {}
                }
            });
            return;
        }
        tokio::spawn(serving.run(session));
    }

    /// Asks every session to end in order, and waits until they have; not longer than [`SHUTDOWN_GRACE`]. Whether there
    /// were any.
    pub(crate) async fn stop(&self) -> bool {
        let were_any = !self.stop.is_closed();
        self.stop.send_replace(true);
        self.stop.closed().await;
        were_any
    }
}

/// One session.
struct Serving {
    http: http2::Builder<Spawn>,
    router: Router,
    stop: watch::Receiver<bool>,
}

impl Serving {
    async fn run(mut self, session: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let calls = Calls(self.router);
        let connection = self.http.serve_connection(TokioIo::new(session), calls);
        let mut connection = pin!(connection);
        let stopped = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = stopped(&mut self.stop) => None,
        };
        let result = match stopped {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(SHUTDOWN_GRACE, connection)
                    .await
                    .unwrap_or_else(|_| {
                        tracing::debug!("calls were still under way when the agent stopped");
                        Ok(())
                    })
            }
        };
        // A session that ends in the middle of calls is what sessions do when a host goes.
        if let Err(error) = result {
            tracing::debug!(%error, "session ended");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the agent is gone altogether.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The router as hyper's service.
struct Calls(Router);

impl Service<Request<Incoming>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        Call(
            self.0
                .route(request.map(|body| Body::new(Upload::new(body)))),
        )
    }
}

/// A call that can't fail, in hyper's terms.
struct Call(CallFuture);

impl Future for Call {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

/// Runs a call in a task of its own.
#[derive(Debug, Clone, Copy)]
struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}
