//! Users, groups and their ids: the files that name them, the ranges a user may map, and the user namespaces that map them.

pub mod enter;
pub mod maps;
pub mod subordinate;
