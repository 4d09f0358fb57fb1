//! Instructions of a Dockerfile that say something of an image without running anything in it: `nsrs import --change`.

use serde_json::{Value, json};

use crate::config_values::{below_root, cleaned, ports, signal};
use nsrs_base::error::{Error, Result};
use nsrs_base::options::CHANGES;

/// Changes the `config` of a new image by an instruction of a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`,
/// `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`.
///
/// # Errors
/// It is not one of these, has no value, or has one that no container could follow.
pub fn change(config: &mut Value, instruction: &str) -> Result<()> {
    changed(config, instruction).map_err(|why| Error::invalid(CHANGES, instruction, why))
}

fn changed(config: &mut Value, instruction: &str) -> Result<(), String> {
    let (word, rest) = instruction.trim().split_once(char::is_whitespace).ok_or("a value is missing")?;
    let rest = rest.trim();
    if !config.is_object() {
        *config = json!({});
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config["Cmd"] = command(rest).into(),
        "ENTRYPOINT" => config["Entrypoint"] = command(rest).into(),
        "USER" => config["User"] = text(&read(rest)?).into(),
        "WORKDIR" => config["WorkingDir"] = workdir(&config["WorkingDir"], &text(&read(rest)?))?.into(),
        "STOPSIGNAL" => {
            signal(rest).ok_or("unknown signal")?;
            config["StopSignal"] = rest.into();
        }
        "VOLUME" => {
            for volume in volumes(rest)? {
                config["Volumes"][volume] = json!({});
            }
        }
        "EXPOSE" => {
            for word in words(rest)? {
                for port in ports(&text(&word)).ok_or("give PORT[/tcp|udp|sctp], or a range of ports")? {
                    config["ExposedPorts"][port] = json!({});
                }
            }
        }
        "LABEL" => {
            for (name, value) in name_values(rest)? {
                config["Labels"][name] = value.into();
            }
        }
        "ENV" => {
            let mut env: Vec<String> = serde_json::from_value(config["Env"].clone()).unwrap_or_default();
            for (name, value) in name_values(rest)? {
                env.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
                env.push(format!("{name}={value}"));
            }
            config["Env"] = env.into();
        }
        _ => return Err("give CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR".into()),
    }
    Ok(())
}

/// A JSON array of words, or a line for the shell, which may begin with `[` too.
fn command(rest: &str) -> Vec<String> {
    serde_json::from_str(rest).unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into(), rest.into()])
}

/// A relative one is below that of the instruction before.
fn workdir(before: &Value, path: &str) -> Result<String, &'static str> {
    match path {
        "" => Err("a value is missing"),
        path if path.starts_with('/') => Ok(path.to_owned()),
        path => Ok(cleaned(&format!("{}/{path}", before.as_str().unwrap_or_default()))),
    }
}

/// A JSON array of paths, or paths.
fn volumes(rest: &str) -> Result<Vec<String>, String> {
    let paths: Vec<String> = match rest.starts_with('[') {
        true => serde_json::from_str(rest).map_err(|error| format!("invalid JSON array of paths: {error}"))?,
        false => words(rest)?.iter().map(|word| text(word)).collect(),
    };
    match paths.iter().find(|path| below_root(path).is_none()) {
        // No container would start on the image.
        Some(path) => Err(format!("{path:?} is not a path below /")),
        None => Ok(paths),
    }
}

/// `NAME=VALUE …`, or the old form, `NAME VALUE`: there the rest of the line is the value.
fn name_values(rest: &str) -> Result<Vec<(String, String)>, &'static str> {
    const FORM: &str = "give NAME=VALUE";
    let halves = |word: &[Character]| {
        let at = word.iter().position(|c| c.is_bare && c.value == '=')?;
        Some((text(&word[..at]), text(&word[at + 1..])))
    };
    let words = words(rest)?;
    let pairs = match words.first().and_then(|word| halves(word)) {
        Some(_) => words.iter().map(|word| halves(word)).collect::<Option<Vec<_>>>().ok_or(FORM)?,
        None => {
            let (name, value) = rest.split_once(char::is_whitespace).ok_or(FORM)?;
            vec![(text(&read(name)?), text(&read(value.trim())?))]
        }
    };
    match pairs.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
        true => Err("a name is empty, or has a = in it"),
        false => Ok(pairs),
    }
}

/// A character of an instruction.
#[derive(Clone, Copy)]
struct Character {
    value: char,
    /// It stands in no quotes and behind no backslash, and so may part words.
    is_bare: bool,
}

/// The words of an instruction, parted by blanks.
fn words(text: &str) -> Result<Vec<Vec<Character>>, &'static str> {
    let characters = read(text)?;
    let words = characters.split(|c| c.is_bare && c.value.is_whitespace());
    Ok(words.filter(|word| !word.is_empty()).map(<[_]>::to_vec).collect())
}

/// What is left of an instruction without its quotes and escapes, as docker reads it: in double quotes a backslash
/// counts only before `"`, `$` and another one, in single quotes not at all.
fn read(text: &str) -> Result<Vec<Character>, &'static str> {
    let mut all = Vec::new();
    let mut quote = None;
    let mut rest = text.chars().peekable();
    while let Some(value) = rest.next() {
        match (quote, value) {
            (Some(open), value) if value == open => quote = None,
            (None, '"' | '\'') => quote = Some(value),
            (None, '\\') => all.extend(rest.next().map(|value| Character { value, is_bare: false })),
            (Some('"'), '\\') => {
                let value = rest.next_if(|next| matches!(next, '"' | '$' | '\\')).unwrap_or('\\');
                all.push(Character { value, is_bare: false });
            }
            (_, value) => all.push(Character { value, is_bare: quote.is_none() }),
        }
    }
    if quote.is_some() { Err("a quote in it isn't closed") } else { Ok(all) }
}

fn text(characters: &[Character]) -> String {
    characters.iter().map(|c| c.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(instructions: &[&str]) -> Result<Value> {
        let mut config = json!({});
        for instruction in instructions {
            change(&mut config, instruction)?;
        }
        Ok(config)
    }

    #[test]
    fn names_and_values_are_quoted_and_escaped_as_docker_has_it() {
        for (line, wanted) in [
            (r#"LABEL "a b"="c d" e=f"#, json!({ "Labels": { "a b": "c d", "e": "f" } })),
            (r"LABEL a=x\ y b=1", json!({ "Labels": { "a": "x y", "b": "1" } })),
            (r#"LABEL a="" b='c "d"'"#, json!({ "Labels": { "a": "", "b": "c \"d\"" } })),
            (r#"LABEL a="b=c"=d"#, json!({ "Labels": { "a": "b=c=d" } })),
            (r#"ENV a="x\"y" b=1"#, json!({ "Env": [r#"a=x"y"#, "b=1"] })),
            (r"ENV c=z\ z", json!({ "Env": ["c=z z"] })),
            (r#"ENV a="\n\\" b='\"' c=\n"#, json!({ "Env": [r"a=\n\", r#"b=\""#, "c=n"] })),
            ("ENV a b=c  d", json!({ "Env": ["a=b=c  d"] })),
            (r#"ENV a "b c""#, json!({ "Env": ["a=b c"] })),
        ] {
            assert_eq!(config(&[line]).unwrap(), wanted, "{line}");
        }
        for (line, why) in [
            ("ENV =x", "a name is empty"),
            (r#"LABEL ""=x"#, "a name is empty"),
            ("ENV a=b c", "give NAME=VALUE"),
            ("LABEL novalue", "give NAME=VALUE"),
            (r#"LABEL a="b"#, "isn't closed"),
            (r#"ENV "a=b" c"#, "has a = in it"),
            (r#"LABEL "a=b"=c"#, "has a = in it"),
        ] {
            let error = config(&[line]).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{line}: {error:?}");
        }
    }

    #[test]
    fn a_working_directory_is_below_the_one_before() {
        for (lines, wanted) in [
            (&["WORKDIR /a", "WORKDIR b"][..], "/a/b"),
            (&["WORKDIR rel"], "/rel"),
            (&["WORKDIR /a/b", "WORKDIR ../c"], "/a/c"),
            (&["WORKDIR /a", r#"WORKDIR "/b c""#], "/b c"),
        ] {
            assert_eq!(config(lines).unwrap()["WorkingDir"], wanted, "{lines:?}");
        }
        assert!(config(&[r#"WORKDIR """#]).is_err());
    }

    #[test]
    fn volumes_on_which_no_container_would_start_are_refused() {
        for line in [r#"VOLUME ["/v1", "/v 2"]"#, r#"VOLUME /v1 "/v 2""#, r"VOLUME /v1 /v\ 2"] {
            assert_eq!(config(&[line]).unwrap(), json!({ "Volumes": { "/v1": {}, "/v 2": {} } }), "{line}");
        }
        for line in ["VOLUME rel", "VOLUME /", r#"VOLUME ["/v1", "rel"]"#] {
            let error = config(&[line]).unwrap_err().to_string();
            assert!(error.contains("is not a path below /"), "{error}");
        }
        let error = config(&[r#"VOLUME ["/v1", "/v2""#]).unwrap_err().to_string();
        assert!(error.contains("invalid JSON array of paths"), "{error}");
    }

    #[test]
    fn a_command_may_begin_with_a_bracket_of_the_shell() {
        assert_eq!(config(&["CMD [ -e x ]"]).unwrap()["Cmd"], json!(["/bin/sh", "-c", "[ -e x ]"]));
    }
}
