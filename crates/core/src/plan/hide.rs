//! The places of a home directory that hold secrets. On the host's tree they are hidden from the command.

/// Paths relative to a home directory: directories and files that hold keys, tokens, passwords, cookies or histories.
pub const SECRETS: [&str; 140] = [
    ".ssh",
    ".gnupg",
    ".ssh2",
    ".putty",
    ".smbcredentials",
    ".config/filezilla",
    ".subversion/auth",
    ".config/ngrok",
    ".ngrok2",
    ".Xauthority",
    ".ICEauthority",
    ".pki",
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".kde/share/apps/kwallet",
    ".config/keepassxc",
    ".config/Bitwarden",
    ".config/Bitwarden CLI",
    ".config/1Password",
    ".config/op",
    ".config/sops",
    ".config/age",
    ".vault-token",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/doctl",
    ".config/hcloud",
    ".config/linode-cli",
    ".config/scw",
    ".oci",
    ".boto",
    ".s3cfg",
    ".config/rclone",
    ".terraform.d",
    ".terraformrc",
    ".pulumi",
    ".kube",
    ".docker/config.json",
    ".config/containers/auth.json",
    ".config/helm",
    ".fly",
    ".config/heroku",
    ".config/netlify",
    ".local/share/com.vercel.cli",
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".authinfo",
    ".authinfo.gpg",
    ".config/gopass",
    ".config/KeePassXC",
    ".rhosts",
    ".claude",
    ".claude.json",
    ".codex",
    ".gemini",
    ".config/github-copilot",
    ".cursor",
    ".config/Cursor",
    ".config/configstore",
    ".vercel",
    ".netlify",
    ".wrangler",
    ".config/.wrangler",
    ".cloudflared",
    ".databrickscfg",
    ".snowflake",
    ".cache/huggingface/token",
    ".huggingface",
    ".kaggle",
    ".minikube",
    ".step",
    ".edgerc",
    ".bluemix",
    ".ibmcloud",
    ".tsh",
    ".config/openstack",
    ".config/stripe",
    ".config/flyctl",
    ".config/anthropic",
    ".railway",
    ".sentryclirc",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    ".pip",
    ".config/pip",
    ".yarnrc",
    ".bunfig.toml",
    ".nuget/NuGet",
    ".composer/auth.json",
    ".config/composer/auth.json",
    ".config/pypoetry/auth.toml",
    ".pgpass",
    ".my.cnf",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".mozilla",
    ".librewolf",
    ".config/opera",
    ".config/vivaldi",
    "snap/firefox",
    "snap/chromium",
    ".var/app",
    ".thunderbird",
    ".config/evolution",
    ".local/share/evolution",
    ".msmtprc",
    ".mbsyncrc",
    ".fetchmailrc",
    ".bitcoin",
    ".electrum",
    ".config/Signal",
    ".config/Slack",
    ".config/discord",
    ".purple",
    ".bash_history",
    ".zsh_history",
    ".node_repl_history",
    ".python_history",
    ".psql_history",
    ".mysql_history",
    ".sqlite_history",
    ".rediscli_history",
    ".irb_history",
    ".lesshst",
    ".viminfo",
    ".local/share/fish",
];

/// Every path that is hidden in these homes.
#[must_use]
pub fn paths(homes: &[String]) -> Vec<String> {
    let mut homes: Vec<&str> = homes.iter().map(|home| home.trim_end_matches('/')).collect();
    homes.sort_unstable();
    homes.dedup();
    homes.iter().flat_map(|home| SECRETS.iter().map(move |secret| format!("{home}/{secret}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_named_twice_or_lies_in_another() {
        for place in SECRETS {
            let within = |other: &&&str| place == **other || place.starts_with(&format!("{other}/"));
            assert_eq!(SECRETS.iter().filter(within).count(), 1, "{place}");
        }
    }

    #[test]
    fn every_home_has_its_secrets_hidden_once() {
        let hidden = paths(&["/root".into(), "/home/ann/".into(), "/root/".into()]);
        assert_eq!(hidden.iter().filter(|path| *path == "/root/.ssh").count(), 1);
        assert!(hidden.contains(&"/home/ann/.aws".into()));
    }
}
