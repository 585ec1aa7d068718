//! One test binary: a file for each subject.

mod check;
