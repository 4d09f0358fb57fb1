//! The network of a plan, and the files that name it.

use std::fmt::Result;

use super::sheet::{Sheet, quoted};
use crate::net::kinds::Rows;
use crate::plan::network::Names;

/// The files in /etc that are the container's own.
pub fn name_files(sheet: &mut Sheet<'_, '_>, names: &Names) -> Result {
    let Names { hosts, resolv_conf, hostname, add_hosts, dns, dns_search, dns_options } = names;
    let files = [(hosts, "/etc/hosts"), (resolv_conf, "/etc/resolv.conf"), (hostname, "/etc/hostname")]
        .map(|(own, path)| own.then_some(path));
    let files: Vec<&str> = files.into_iter().flatten().collect();
    if !files.is_empty() {
        sheet.list("own files", files)?;
    }
    for (label, values) in
        [("  add hosts", add_hosts), ("  dns", dns), ("  dns search", dns_search), ("  dns options", dns_options)]
    {
        if !values.is_empty() {
            sheet.list(label, values.iter().map(|value| quoted(value)))?;
        }
    }
    Ok(())
}

impl Rows for Sheet<'_, '_> {
    fn prose(&mut self, label: &str, text: &str) -> Result {
        Sheet::prose(self, label, text)
    }

    fn list(&mut self, label: &str, items: &[String]) -> Result {
        Sheet::list(self, label, items)
    }

    fn quote(&self, word: &str) -> String {
        quoted(word).into_owned()
    }
}
