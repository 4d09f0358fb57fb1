//! Pull, push, login and logout against docker's registry and through a proxy that makes every mistake there is.
//!
//! The registry, the images and the tools that read back are those of Debian: docker-registry, umoci, skopeo,
//! busybox-static, apache2-utils (htpasswd), openssl. Everything speaks to 127.0.0.1 only.

mod auth;
mod damage;
mod faults;
mod faulty;
mod full;
mod kill;
mod platforms;
mod pull;
mod push;
mod support;
