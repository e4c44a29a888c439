//! Moments that chance seldom finds.
