//! The tables of rooms in ARCHITECTURE.md: `| room | may use | job |`, in any number of tables.
//!
//! A room is a module of a crate (`core::plan`), a crate (`store`), a folder or a file of the scripts (`ts/io`, `cli`).
//! What it may use are names of rooms; a name stands for all that is below it (`base` for `base::sys` too).

/// Where a room is: `["core", "plan"]`.
type Name = Vec<String>;

struct Room {
    name: Name,
    may_use: Vec<Name>,
}

/// All of them.
pub struct Rooms(Vec<Room>);

impl Rooms {
    /// Reads the tables.
    pub fn parse(markdown: &str) -> Result<Rooms, String> {
        let mut rooms = Vec::new();
        let mut columns = None;
        for line in markdown.lines() {
            let Some(cells) = cells(line) else {
                columns = None;
                continue;
            };
            let column = |title: &str| cells.iter().position(|cell| cell.eq_ignore_ascii_case(title));
            if let (Some(room), Some(may_use)) = (column("room"), column("may use")) {
                columns = Some((room, may_use));
            } else if let Some((room, may_use)) = columns.filter(|_| !is_rule(&cells)) {
                let [room, may_use] = [room, may_use].map(|column| cells.get(column).copied().unwrap_or_default());
                rooms.push(Room { name: name(room), may_use: names(may_use) });
            }
        }
        if rooms.is_empty() {
            return Err("there is no table with the columns room and may use".into());
        }
        let rooms = Rooms(rooms);
        rooms.validate()?;
        Ok(rooms)
    }

    fn validate(&self) -> Result<(), String> {
        for (index, room) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|other| other.name == room.name) {
                return Err(format!("{} stands in the table twice", shown(&room.name)));
            }
            if let Some(unknown) =
                room.may_use.iter().find(|name| !self.0.iter().any(|room| room.name.starts_with(name)))
            {
                return Err(format!("{} may use {}, which is no room", shown(&room.name), shown(unknown)));
            }
        }
        Ok(())
    }

    /// The room that a path lies in: the one with the longest name.
    fn of(&self, path: &[String]) -> Option<&Room> {
        self.0.iter().filter(|room| path.starts_with(&room.name)).max_by_key(|room| room.name.len())
    }

    /// Whether what is at `from` may use `to`; if not, why.
    pub fn check(&self, from: &[String], to: &[String]) -> Result<(), String> {
        let room = self.of(from).ok_or_else(|| format!("{} is in no room", shown(from)))?;
        // A crate that is named as a whole needs leave for the whole of it.
        let target = self.of(to).map_or(to, |room| &room.name);
        let is_allowed = target == room.name || room.may_use.iter().any(|name| target.starts_with(name));
        if is_allowed { Ok(()) } else { Err(format!("{} may not use {}", shown(&room.name), shown(target))) }
    }

    /// Rooms without any of these files.
    pub fn without<'a>(&self, from: impl Iterator<Item = &'a [String]>) -> Vec<String> {
        let seen: Vec<_> = from.filter_map(|path| self.of(path)).map(|room| &room.name).collect();
        self.0.iter().filter(|room| !seen.contains(&&room.name)).map(|room| shown(&room.name)).collect()
    }

    /// Rooms that may use each other in a circle, if there is one.
    pub fn circle(&self) -> Option<String> {
        let mut left: Vec<&Room> = self.0.iter().collect();
        // Takes away whoever uses nothing that is left, until nobody does.
        loop {
            let uses = |room: &Room, other: &Room| {
                other.name != room.name && room.may_use.iter().any(|name| other.name.starts_with(name))
            };
            let rest: Vec<_> = left.iter().copied().filter(|room| left.iter().any(|other| uses(room, other))).collect();
            if rest.len() == left.len() {
                break;
            }
            left = rest;
        }
        let names: Vec<_> = left.iter().map(|room| shown(&room.name)).collect();
        (!names.is_empty()).then(|| format!("in or above a circle: {}", names.join(", ")))
    }
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Whether this is the line between a table's titles and its rows.
fn is_rule(cells: &[&str]) -> bool {
    cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|character| matches!(character, '-' | ':')))
}

fn names(cell: &str) -> Vec<Name> {
    let names = cell.split(',').map(name);
    names.filter(|name| !name.is_empty() && name[0].starts_with(char::is_alphanumeric)).collect()
}

/// `core::plan` and `ts/io/` in backticks or without.
fn name(cell: &str) -> Name {
    let text = cell.trim().replace('`', "").replace("::", "/");
    text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn shown(name: &[String]) -> String {
    name.join(if name.first().is_some_and(|first| first == "ts" || first == "cli") { "/" } else { "::" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Rooms
| word | meaning |
| --- | --- |
| `spec` | no room: this table has other columns |

| room        | may use               | job  |
| :---------- | --------------------- | ---- |
| `base::sys` | —                     | low  |
| base::ids   | `base::sys`           | ids  |
| `core::spec`|                       | data |
| `core::plan`| `base`, `core::spec`  | pure |

text

| Room    | Job   | May use     |
| ------- | ----- | ----------- |
| `ts/io` | reads |             |
| `ts`    | face  | `ts/io`     |
| cli     | words | ts          |
";

    fn path(text: &str) -> Vec<String> {
        name(text)
    }

    fn check(from: &str, to: &str) -> Result<(), String> {
        Rooms::parse(TABLE).unwrap().check(&path(from), &path(to))
    }

    #[test]
    fn what_the_table_allows_is_allowed() {
        for (from, to) in [
            ("base::ids::passwd", "base::sys::wait::Pid"),
            ("core::plan", "base::ids::Ids"),
            ("core::plan::root", "core::plan::mount::Mount"),
            ("core::plan", "base"),
            ("ts/run", "ts/io/stream"),
            ("cli/run", "ts/io/stream"),
            ("cli/run", "ts/run"),
        ] {
            assert_eq!(check(from, to), Ok(()), "{from} {to}");
        }
    }

    #[test]
    fn what_it_does_not_allow_is_named() {
        for (from, to, why) in [
            ("base::sys::wait", "base::ids::Ids", "base::sys may not use base::ids"),
            ("core::spec", "core::plan::Plan", "core::spec may not use core::plan"),
            ("base::ids", "base", "base::ids may not use base"),
            ("ts/io/stream", "ts/run", "ts/io may not use ts"),
            ("core::net::veth", "base::sys", "core::net::veth is in no room"),
            ("core::plan", "core::net::veth", "core::plan may not use core::net::veth"),
            ("core", "core::plan", "core is in no room"),
        ] {
            assert_eq!(check(from, to), Err(why.to_owned()), "{from} {to}");
        }
    }

    #[test]
    fn a_table_that_says_nothing_or_nonsense_is_an_error() {
        for (table, why) in [
            ("| room | job |\n| --- | --- |\n| `a` | x |\n", "no table"),
            ("| room | may use |\n| --- | --- |\n", "no table"),
            ("| room | may use |\n| --- | --- |\n| a | b |\n", "a may use b, which is no room"),
            ("| room | may use |\n| --- | --- |\n| a | |\n| `a` | |\n", "a stands in the table twice"),
        ] {
            let error = Rooms::parse(table).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn circles_and_empty_rooms_are_found() {
        let rooms = Rooms::parse(TABLE).unwrap();
        assert_eq!(rooms.circle(), None);
        let seen = [path("base::sys::wait"), path("ts/io/x"), path("core::plan"), path("cli/run")];
        let unseen = rooms.without(seen.iter().map(Vec::as_slice));
        assert_eq!(unseen, ["base::ids", "core::spec", "ts"]);
        let round = "| room | may use |\n| --- | --- |\n| a | b |\n| b | c |\n| c | a |\n| d | |\n";
        assert_eq!(Rooms::parse(round).unwrap().circle().unwrap(), "in or above a circle: a, b, c");
    }
}
