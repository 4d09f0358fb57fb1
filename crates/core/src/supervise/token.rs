//! What an epoll event is about.

use rustix::event::epoll;

/// Which descriptor of a container is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The channel to its first process.
    Channel,
    /// Its first process has ended.
    First,
    /// Its stage has ended.
    Stage,
    /// The program that connects it is ready.
    NetworkReady,
    /// The program that connects it has ended.
    NetworkEnded,
    /// Its changes are listed.
    Listed,
}

/// Numbers of the sources in a token; 0 is the front end's own.
const SOURCES: [Source; 6] =
    [Source::Channel, Source::First, Source::Stage, Source::NetworkReady, Source::NetworkEnded, Source::Listed];
/// Bits of a token that hold the source.
const SOURCE_BITS: u32 = 3;

/// What an epoll event is about: a container and one of its descriptors, or a number of the front end's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Of a container.
    Container(u64, Source),
    /// Of the front end.
    Own(u64),
}

impl Token {
    /// The table of the caller's mounts.
    pub(super) const MOUNTS: Token = Token::Own(u64::MAX >> SOURCE_BITS);
    /// The names of the images.
    pub(super) const IMAGES: Token = Token::Own((u64::MAX >> SOURCE_BITS) - 1);

    /// As epoll carries it.
    #[must_use]
    pub fn data(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Token::Own(number) => number << SOURCE_BITS,
            Token::Container(key, source) => {
                let number = SOURCES.iter().position(|other| *other == source).map_or(0, |index| index as u64 + 1);
                key << SOURCE_BITS | number
            }
        })
    }

    /// From what epoll carried.
    #[must_use]
    pub fn from_data(data: epoll::EventData) -> Token {
        let number = data.u64() >> SOURCE_BITS;
        match (data.u64() & ((1 << SOURCE_BITS) - 1)).checked_sub(1).and_then(|index| SOURCES.get(index as usize)) {
            Some(source) => Token::Container(number, *source),
            None => Token::Own(number),
        }
    }
}
