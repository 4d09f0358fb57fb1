//! What an epoll event is about.

use rustix::event::epoll;

/// Which descriptor of a container's process is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The channel to the process: a message arrived, or the other end closed.
    Channel,
    /// The pidfd of the process: it has ended.
    End,
    /// The intermediate process that made it has ended.
    IntermediateEnd,
    /// The program that connects the container is ready.
    NetworkReady,
    /// The program that connects the container has ended.
    NetworkEnd,
    /// The pidfd of the process that lists the container's changes: it has ended.
    Listed,
}

const SOURCES: [EventSource; 6] = [
    EventSource::Channel,
    EventSource::End,
    EventSource::IntermediateEnd,
    EventSource::NetworkReady,
    EventSource::NetworkEnd,
    EventSource::Listed,
];

/// A container of an engine, and one of its processes; 0 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The engine's number for the container.
    pub container: u32,
    /// The container's number for the process, below 2^24.
    pub member: u32,
}

impl Key {
    /// The first process of a container.
    #[must_use]
    pub fn first(container: u32) -> Key {
        Key { container, member: 0 }
    }
}

/// What an epoll event is about: a kind and an index of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A descriptor of the front, by a number of the front's own.
    Front(u32),
    /// The table of the supervisor's mounts has changed.
    Mounts,
    /// Names of the image store have changed.
    Images,
    /// The entrance has sent a message.
    Entrance,
    /// The entrance has ended.
    EntranceEnd,
    /// A child of the supervisor has ended, possibly one that nobody watches by a pidfd.
    Children,
    /// A descriptor of a process in a container.
    Container(Key, EventSource),
}

/// Where the kind stands in the 64 bits that epoll carries: 8 bits of kind, 24 of process, 32 of container.
const KIND_SHIFT: u32 = 56;
const MEMBER_SHIFT: u32 = 32;
/// Most numbers for processes of a container.
pub const MOST_MEMBERS: u32 = 1 << (KIND_SHIFT - MEMBER_SHIFT);
/// The kind of the first of [`SOURCES`].
const FIRST_SOURCE: u64 = 16;

impl Token {
    /// The 64 bits that epoll carries with the descriptor.
    #[must_use]
    pub fn data(self) -> epoll::EventData {
        let of = |kind: u64, index: u64| kind << KIND_SHIFT | index;
        epoll::EventData::new_u64(match self {
            Token::Front(number) => of(0, u64::from(number)),
            Token::Mounts => of(1, 0),
            Token::Images => of(2, 0),
            Token::Entrance => of(3, 0),
            Token::EntranceEnd => of(4, 0),
            Token::Children => of(5, 0),
            Token::Container(key, source) => {
                let kind = FIRST_SOURCE + SOURCES.iter().position(|other| *other == source).unwrap_or(0) as u64;
                of(kind, u64::from(key.member % MOST_MEMBERS) << MEMBER_SHIFT | u64::from(key.container))
            }
        })
    }

    /// Decodes what epoll carried; `None` if it is not a token.
    #[must_use]
    pub fn from_data(data: epoll::EventData) -> Option<Token> {
        let bits = data.u64();
        let container = bits as u32;
        let member = (bits >> MEMBER_SHIFT) as u32 % MOST_MEMBERS;
        Some(match bits >> KIND_SHIFT {
            0 => Token::Front(container),
            1 => Token::Mounts,
            2 => Token::Images,
            3 => Token::Entrance,
            4 => Token::EntranceEnd,
            5 => Token::Children,
            kind => {
                let source = kind.checked_sub(FIRST_SOURCE).and_then(|index| SOURCES.get(index as usize))?;
                Token::Container(Key { container, member }, *source)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back_from_epoll_as_it_went() {
        let numbers = [0, 1, 77, u32::MAX];
        let fronts = numbers.map(Token::Front);
        let containers = numbers.into_iter().flat_map(|container| {
            [0, 1, MOST_MEMBERS - 1]
                .into_iter()
                .flat_map(move |member| SOURCES.map(|source| Token::Container(Key { container, member }, source)))
        });
        let others = [Token::Mounts, Token::Images, Token::Entrance, Token::EntranceEnd, Token::Children];
        let all: Vec<Token> = fronts.into_iter().chain(others).chain(containers).collect();
        for token in &all {
            assert_eq!(Token::from_data(token.data()), Some(*token));
        }
        let data: std::collections::HashSet<u64> = all.iter().map(|token| token.data().u64()).collect();
        assert_eq!(data.len(), all.len(), "no two tokens are one");
    }

    #[test]
    fn what_no_token_is_is_none() {
        for bits in [6 << KIND_SHIFT, (FIRST_SOURCE + SOURCES.len() as u64) << KIND_SHIFT, u64::MAX] {
            assert_eq!(Token::from_data(epoll::EventData::new_u64(bits)), None);
        }
    }
}
