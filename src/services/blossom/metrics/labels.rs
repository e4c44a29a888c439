//! Values of the labels.

use crate::base::words;

words! {
    /// The endpoint by which a blob came.
    Way {
        /// `PUT /upload`.
        Upload = "upload",
        /// `PUT /media`.
        Media = "media",
        /// `PUT /mirror`.
        Mirror = "mirror",
    }
}

words! {
    /// How a request to store a blob ended.
    UploadOutcome {
        /// Stored; the blob or this owner of it is new.
        Stored = "stored",
        /// This owner had the blob already, on enough upstreams.
        Known = "known",
        /// Refused before or after the body: token, size, type, hash, quota, ban.
        Refused = "refused",
        /// Fewer upstreams than required took it.
        NoQuorum = "no_quorum",
        /// The client broke off, or its body was too short.
        Aborted = "aborted",
        /// Our own fault: the database or the built-in store failed.
        Failed = "failed",
    }
}

words! {
    /// How a request for a blob ended.
    DownloadOutcome {
        /// A redirect to a replica.
        Redirected = "redirected",
        /// The bytes were sent from here; ranges count.
        Streamed = "streamed",
        /// The client has the blob in its cache.
        NotModified = "not_modified",
        /// No known upstream, hint or list of the author has it.
        Absent = "absent",
        /// It exists, but no replica can be read now.
        Unavailable = "unavailable",
        /// The stream ended before the last byte, by the upstream's fault.
        BrokenOff = "broken_off",
    }
}

words! {
    /// Where the look-up of a blob's replicas ended.
    LookupSource {
        /// The replicas recorded here.
        Known = "known",
        /// A look-up made less than its lifetime ago, or one that runs.
        Cached = "cached",
        /// All upstreams were asked.
        Asked = "asked",
        /// The client's hints (BUD-10).
        Hints = "hints",
        /// The author's list of servers (kind 10063).
        Author = "author",
        /// It was found nowhere.
        Absent = "absent",
    }
}

words! {
    /// What an upstream is asked to do.
    Operation {
        /// Takes a blob.
        Put = "put",
        /// Says whether it has one.
        Head = "head",
        /// Gives one.
        Get = "get",
        /// Deletes one.
        Delete = "delete",
        /// Fetches one from another server.
        Mirror = "mirror",
        /// Lists the blobs of a key.
        List = "list",
        /// Says whether it would take one.
        Preflight = "preflight",
    }
}

words! {
    /// How a request to an upstream ended.
    CallOutcome {
        /// As asked; that it has no such blob counts.
        Success = "success",
        /// It refused for a reason that lies with the client or the token.
        Refused = "refused",
        /// It failed: no connection, no answer in time, 5xx, a wrong answer.
        Failed = "failed",
        /// It read so slowly that the upload went on without it.
        TooSlow = "too_slow",
        /// We broke off: the client's body ended early or had another hash.
        BrokenOff = "broken_off",
    }
}

words! {
    /// How an attempt to make another replica ended.
    RepairOutcome {
        /// The bytes were copied through this process.
        Copied = "copied",
        /// The upstream fetched it itself.
        Mirrored = "mirrored",
        /// The upstream failed or refused; tried again later.
        Failed = "failed",
        /// No replica can be read.
        NoSource = "no_source",
    }
}

words! {
    /// How an attempt to adopt a blob to which a followed key refers ended.
    AdoptionOutcome {
        /// Stored and owned by that key.
        Adopted = "adopted",
        /// Here already; the key is an owner from now on.
        Known = "known",
        /// Found nowhere; it is tried again later.
        Missed = "missed",
        /// Found, and refused: too large, banned, over the key's quota.
        Refused = "refused",
        /// Found, and the bytes have another hash.
        OtherBytes = "other_bytes",
    }
}
