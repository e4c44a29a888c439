//! Refusals and failures as answers.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;

use super::JobsState;
use crate::http::{Failure, Rejection};
use crate::net::objects::ObjectError;
use crate::services::jobs::decide::{Refusal, SubmissionError, WorkerRefusal};
use crate::store::Error;

/// How long a client should wait before a retry while the database is unavailable or busy.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The reason under which requests without a valid credential are counted.
const UNAUTHORIZED: &str = "unauthorized";

/// Why a request is refused or fails.
#[derive(Debug)]
pub(super) enum Refused {
    /// One field is out of its limits.
    Field(SubmissionError),
    /// The change of a job is refused.
    Change(Refusal),
    /// The change of a worker is refused.
    Worker(WorkerRefusal),
    /// Any other rejection, and the reason under which it is counted.
    Other(&'static str, Rejection),
    /// The database rejected the data, is unavailable, or failed.
    Store(Error),
    /// The object storage does not answer, refuses, or is full.
    Objects(ObjectError),
    /// Others changed the same subject each time before this request could.
    Contended,
}

impl Refused {
    /// 400 for a field.
    pub(super) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field(SubmissionError { field, problem: problem.into() })
    }

    /// 404 for a missing `what`.
    pub(super) fn not_found(what: &str) -> Self {
        Self::Other("not_found", Rejection::not_found(what))
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        let message = "a valid API token, worker secret or session is required";
        Self::Other(UNAUTHORIZED, Rejection::new(StatusCode::UNAUTHORIZED, message).field("authorization"))
    }

    /// Whether it is [`Refused::unauthorized`].
    pub(super) fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Other(UNAUTHORIZED, _))
    }

    /// 403.
    pub(super) fn forbidden(why: impl Into<String>) -> Self {
        Self::Other("forbidden", Rejection::new(StatusCode::FORBIDDEN, why.into()))
    }

    /// A rejection with a code of its own.
    pub(super) fn coded(status: StatusCode, code: &'static str, why: impl Into<String>) -> Self {
        Self::Other(code, Rejection::new(status, why.into()).code(code))
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field(error) => error.field,
            Self::Change(refusal) => refusal.reason(),
            Self::Worker(WorkerRefusal::Unknown) => "worker_unknown",
            Self::Worker(WorkerRefusal::Exists) => "worker_exists",
            Self::Worker(WorkerRefusal::Disabled) => "worker_disabled",
            Self::Worker(WorkerRefusal::OtherType) => "worker_other_type",
            Self::Worker(WorkerRefusal::Reserved) => "worker_reserved",
            Self::Worker(WorkerRefusal::Full) => "workers_full",
            Self::Other(reason, _) => reason,
            Self::Store(Error::Data(_)) => "store_data",
            Self::Store(Error::NoSpace(_)) | Self::Objects(ObjectError::NoSpace) => "no_space",
            Self::Store(error) if error.is_outage() => "store_busy",
            Self::Store(_) => "store_broken",
            Self::Objects(ObjectError::Unavailable(_)) => "objects_busy",
            Self::Objects(_) => "objects_broken",
            Self::Contended => "contended",
        }
    }

    fn failure(self) -> Failure {
        match self {
            Self::Field(SubmissionError { field, problem }) => {
                Rejection::bad_field(field, format!("{field} {problem}")).into()
            }
            Self::Change(refusal) => change(&refusal).into(),
            Self::Worker(refusal) => {
                let status = match refusal {
                    WorkerRefusal::Unknown => StatusCode::NOT_FOUND,
                    WorkerRefusal::Exists | WorkerRefusal::Full => StatusCode::CONFLICT,
                    WorkerRefusal::Disabled | WorkerRefusal::OtherType => StatusCode::FORBIDDEN,
                    WorkerRefusal::Reserved => StatusCode::BAD_REQUEST,
                };
                Rejection::new(status, refusal.to_string()).field("worker_id").into()
            }
            Self::Other(_, rejection) => rejection.into(),
            Self::Store(Error::Data(error)) => {
                tracing::warn!(error = %error, "the database refuses a client's data: {error}");
                let message = "the database refuses this data; the same request cannot succeed";
                Rejection::new(StatusCode::BAD_REQUEST, message).into()
            }
            // Not logged here: the log reports the lack of space once, not for each request.
            Self::Store(Error::NoSpace(_)) | Self::Objects(ObjectError::NoSpace) => Failure::NoSpace,
            Self::Store(error) if error.is_outage() => {
                tracing::warn!(error = %error, "a request failed because the database is unavailable: {error}");
                Failure::Busy { retry_after: RETRY_AFTER }
            }
            Self::Store(error) => error.into(),
            Self::Objects(ObjectError::Unavailable(problem)) => {
                tracing::warn!("a request failed because the object storage does not answer: {problem}");
                Failure::Busy { retry_after: RETRY_AFTER }
            }
            Self::Objects(error) => error.into(),
            Self::Contended => Failure::Busy { retry_after: RETRY_AFTER },
        }
    }
}

fn change(refusal: &Refusal) -> Rejection {
    let rejection = match refusal {
        Refusal::Unknown => Rejection::not_found("job"),
        Refusal::LeaseEnded(_)
        | Refusal::NotLeased
        | Refusal::OtherWorker
        | Refusal::Status { .. }
        | Refusal::MovedOn(_) => Rejection::new(StatusCode::CONFLICT, refusal.to_string()),
    };
    rejection.code(refusal.reason())
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<ObjectError> for Refused {
    fn from(error: ObjectError) -> Self {
        Self::Objects(error)
    }
}

impl From<SubmissionError> for Refused {
    fn from(error: SubmissionError) -> Self {
        Self::Field(error)
    }
}

impl JobsState {
    /// Counts a refusal and converts it to the failure that is answered.
    pub(super) fn refuse(&self, refused: impl Into<Refused>) -> Failure {
        let refused = refused.into();
        self.parts().metrics.refused(refused.reason());
        refused.failure()
    }

    /// What a handler answers, or the failure by which it is refused.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Failure> {
        answer.await.map_err(|refused| self.refuse(refused))
    }

    /// The same, as JSON.
    pub(super) async fn json<T>(
        &self,
        answer: impl Future<Output = Result<T, Refused>>,
    ) -> Result<Json<T>, Failure> {
        self.answer(answer).await.map(Json)
    }
}
