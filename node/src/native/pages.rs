//! Pages of items: what they ask a shard for, and the tokens with which they follow each other.
//!
//! A token says all that the next page needs to know, so it outlives its connection and the node.
//! It holds for the request that it came from alone:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 1 | format: 1 |
//! | 1 | 1 | 0 of a record, 1 of a namespace, 2 of a record by a list of keys |
//! | 2 | 1 | 1 if the greatest key comes first |
//! | 3 | 1 | 0 |
//! | 4 | 4 | namespace |
//! | 8 | 8 | the record's hash, or the shard, or the hash of record and list |
//! | 16 | | where the next page begins: a place among the items, and nothing for the shard's first;
//! or a place in the list, as u32 |
//! | end - 4 | 4 | CRC32C of what is before |

use larder_engine::key::{ENCODED_BYTES_MAX, route_hash, shard_of_hash};
use larder_engine::keyed::{KeyedItems, KeyedPage};
use larder_engine::scan::{Page, PageItem, PagePlace, Scan};
use larder_protocol::native::reply::{self, ReplyHead};
use larder_protocol::native::{
    GetItems, ItemKeys, NamespaceSettings, NativePageItem, NativeRequest, NativeStatus,
    PAGE_TOKEN_BYTES_MAX, PageLimits, ScanItems,
};

use super::leases;
use super::records::{Fault, scan_of, settings_of};
use crate::limits::{PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::namespaces::NamespaceView;
use crate::request::{ShardRequest, ShardWork};

/// What a token is answered that is not of its request.
const BAD_TOKEN: Fault =
    (NativeStatus::BadToken, "the token is not one that this request may go on with");

const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

const _: () = {
    let longest = FIXED_BYTES + ENCODED_BYTES_MAX + CHECKSUM_BYTES;
    assert!(longest <= PAGE_TOKEN_BYTES_MAX, "every token that is given is taken back");
};

/// What pages are of that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    namespace: u32,
    is_descending: bool,
    of: PagesOf,
    /// Whether they end with the shard, whose moment a lease keeps.
    is_leased: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PagesOf {
    /// The record with this hash.
    Record(u64),
    /// A namespace, on this shard.
    Namespace(u16),
    /// A record and a list of keys with this hash.
    Keys(u64),
}

/// Where a page begins, besides at the first item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenPlace {
    /// Behind this item.
    Item(PagePlace),
    /// At this place in the list of keys.
    Key(u32),
}

impl Pages {
    /// What a request with this token goes on with, and where.
    fn read(token: &[u8]) -> Option<(Self, Option<TokenPlace>)> {
        let (body, checksum) = token.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (fixed, place) = body.split_first_chunk::<FIXED_BYTES>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let &[FORMAT, kind, is_descending @ (0 | 1), 0, a, b, c, d, number @ ..] = fixed else {
            return None;
        };
        let number = u64::from_le_bytes(number);
        let of = match kind {
            0 => PagesOf::Record(number),
            1 => PagesOf::Namespace(u16::try_from(number).ok()?),
            2 => PagesOf::Keys(number),
            _ => return None,
        };
        let namespace = u32::from_le_bytes([a, b, c, d]);
        let place = match (of, place) {
            (PagesOf::Keys(_), place) => {
                Some(TokenPlace::Key(u32::from_le_bytes(place.try_into().ok()?)))
            }
            (_, []) => None,
            (_, place) => Some(TokenPlace::Item(PagePlace::from_bytes(place)?)),
        };
        let is_descending = is_descending == 1;
        Some((Self { namespace, is_descending, of, is_leased: false }, place))
    }

    /// The token of the page that begins at the place with these bytes.
    fn token(&self, place: &[u8]) -> Vec<u8> {
        let (kind, number) = match self.of {
            PagesOf::Record(hash) => (0, hash),
            PagesOf::Namespace(shard) => (1, u64::from(shard)),
            PagesOf::Keys(hash) => (2, hash),
        };
        let mut token = vec![FORMAT, kind, u8::from(self.is_descending), 0];
        token.extend_from_slice(&self.namespace.to_le_bytes());
        token.extend_from_slice(&number.to_le_bytes());
        token.extend_from_slice(place);
        token.extend_from_slice(&crc32c::crc32c(&token).to_le_bytes());
        token
    }

    /// The token of what follows a page that says that `next` begins the next one, in a store of so
    /// many shards; `None` if there is no more.
    fn next(&self, next: Option<&PagePlace>, shards: u16) -> Option<Vec<u8>> {
        match (next, self.of) {
            (Some(place), _) => Some(self.token(place.as_bytes())),
            (None, PagesOf::Namespace(shard)) if !self.is_leased => {
                let shard = if self.is_descending {
                    shard.checked_sub(1)?
                } else {
                    shard.checked_add(1).filter(|shard| *shard < shards)?
                };
                Some(Self { of: PagesOf::Namespace(shard), ..*self }.token(&[]))
            }
            (None, _) => None,
        }
    }

    /// Pages that show the present.
    fn present(namespace: u32, is_descending: bool, of: PagesOf) -> Self {
        Self { namespace, is_descending, of, is_leased: false }
    }

    /// What `request` asks of a shard of `shards`, and what its pages are of; `None` if it asks for
    /// no page.
    pub(super) fn asked(
        request: &NativeRequest<'_>,
        (namespaces, shards): (&NamespaceView, u16),
        deadline: Option<u64>,
    ) -> Option<Result<(Self, ShardRequest), Fault>> {
        let asked = match request {
            NativeRequest::GetItems(get) => match get.keys {
                Some(keys) => Self::of_keys((get, keys), namespaces, shards),
                None => Self::of_record(get, namespaces, shards),
            },
            NativeRequest::Scan(scan) => Self::of_namespace(scan, namespaces, shards),
            _ => return None,
        };
        Some(asked.map(|(pages, shard, work)| (pages, ShardRequest::new(shard, deadline, work))))
    }

    fn of_record(
        get: &GetItems<'_>,
        namespaces: &NamespaceView,
        shards: u16,
    ) -> Result<(Self, u16, ShardWork), Fault> {
        let GetItems { namespace, record, range, is_descending, limits, token, .. } = *get;
        let settings = settings_of(namespaces, namespace)?;
        let mut scan = scan_of(namespace, record, range);
        scan.is_reverse = is_descending;
        let hash = route_hash(record);
        let pages = Self::present(namespace, is_descending, PagesOf::Record(hash));
        let shard = shard_of_hash(hash, shards);
        if limits.lease != 0 && leases::shard_of(limits.lease, shards)? != shard {
            return Err(leases::OTHER_LEASE);
        }
        if !token.is_empty() {
            let (found, place) = Self::read(token).ok_or(BAD_TOKEN)?;
            let Some(TokenPlace::Item(place)) = place.filter(|_| found == pages) else {
                return Err(BAD_TOKEN);
            };
            scan = scan.after(&place);
        }
        Ok((pages, shard, ShardWork::Page(limited(scan, limits, &settings))))
    }

    fn of_keys(
        (get, keys): (&GetItems<'_>, ItemKeys<'_>),
        namespaces: &NamespaceView,
        shards: u16,
    ) -> Result<(Self, u16, ShardWork), Fault> {
        let GetItems { namespace, record, limits, token, .. } = *get;
        let settings = settings_of(namespaces, namespace)?;
        let record_hash = route_hash(record);
        let list = route_hash(keys.bytes()).rotate_left(21) ^ route_hash(keys.length_bytes());
        let of = PagesOf::Keys(record_hash.rotate_left(42) ^ list);
        let pages = Self::present(namespace, false, of);
        let mut first = 0;
        if !token.is_empty() {
            let (found, place) = Self::read(token).ok_or(BAD_TOKEN)?;
            let Some(TokenPlace::Key(place)) = place.filter(|_| found == pages) else {
                return Err(BAD_TOKEN);
            };
            let place = usize::try_from(place).ok().filter(|place| *place < keys.len());
            first = place.ok_or(BAD_TOKEN)?;
        }
        let work = ShardWork::Keyed(KeyedItems {
            record: record.to_vec(),
            keys: keys.iter().map(<[u8]>::to_vec).collect(),
            first,
            limits: limited(Scan::of_namespace(namespace), limits, &settings),
        });
        Ok((pages, shard_of_hash(record_hash, shards), work))
    }

    fn of_namespace(
        asked: &ScanItems<'_>,
        namespaces: &NamespaceView,
        shards: u16,
    ) -> Result<(Self, u16, ShardWork), Fault> {
        let ScanItems { namespace, limits, token, is_descending } = *asked;
        let settings = settings_of(namespaces, namespace)?;
        let mut scan = Scan::of_namespace(namespace);
        scan.is_reverse = is_descending;
        let is_leased = limits.lease != 0;
        let mut shard = match is_descending {
            _ if is_leased => leases::shard_of(limits.lease, shards)?,
            true => shards - 1,
            false => 0,
        };
        if !token.is_empty() {
            let (found, place) = Self::read(token).ok_or(BAD_TOKEN)?;
            let PagesOf::Namespace(of) = found.of else { return Err(BAD_TOKEN) };
            let is_same = (found.namespace, found.is_descending) == (namespace, is_descending);
            if !is_same || of >= shards || (is_leased && of != shard) {
                return Err(BAD_TOKEN);
            }
            shard = of;
            match place {
                Some(TokenPlace::Item(place)) => scan = scan.after(&place),
                Some(TokenPlace::Key(_)) => return Err(BAD_TOKEN),
                None => {}
            }
        }
        let of = PagesOf::Namespace(shard);
        let pages = Self { is_leased, ..Self::present(namespace, is_descending, of) };
        Ok((pages, shard, ShardWork::Page(limited(scan, limits, &settings))))
    }

    /// Appends the reply with an answer of a store of so many shards.
    pub(super) fn put(
        &self,
        head: ReplyHead,
        (page, bytes): (&Page, usize),
        shards: u16,
        out: &mut Vec<u8>,
    ) {
        let next = self.next(page.next.as_ref(), shards);
        let shows_record = matches!(self.of, PagesOf::Namespace(_));
        let items = page.items.iter().map(|item| shown(item, shows_record));
        reply::put_page(out, head, items, bytes, (next.as_deref(), page.is_damaged));
    }

    /// The same with a page by keys.
    pub(super) fn put_keyed(
        &self,
        head: ReplyHead,
        (page, bytes): (&KeyedPage, usize),
        out: &mut Vec<u8>,
    ) {
        let place = page.next.map(|next| u32::try_from(next).expect("lists are short"));
        let next = place.map(|place| self.token(&place.to_le_bytes()));
        let items = page.items.iter().map(|item| shown(item, false));
        reply::put_page(out, head, items, bytes, (next.as_deref(), page.is_damaged));
    }
}

/// The scan with the limits that a client has asked for, as far as the node grants them.
fn limited(mut scan: Scan, limits: PageLimits, settings: &NamespaceSettings) -> Scan {
    // What the namespace allows, where that is less than what the node does.
    let allowed = |limit: u32, most: usize| match limit {
        0 => most,
        limit => usize::try_from(limit).unwrap_or(usize::MAX).min(most),
    };
    let granted = |asked: u32, usual: usize, most: usize| match asked {
        0 => usual.min(most),
        asked => usize::try_from(asked).unwrap_or(usize::MAX).min(most),
    };
    let items_most = allowed(settings.page_items_max, PAGE_ITEMS_MAX);
    let bytes_most = allowed(settings.page_bytes_max, PAGE_BYTES_MAX);
    let PageLimits { items_max, bytes_max, value_bytes_max, .. } = limits;
    scan.items_max = granted(items_max, PAGE_ITEMS_DEFAULT, items_most);
    scan.bytes_max = granted(bytes_max, PAGE_BYTES_DEFAULT, bytes_most);
    scan.value_bytes_max = granted(value_bytes_max, usize::MAX, usize::MAX);
    scan.keys_only = limits.keys_only;
    scan.passes_damage = limits.passes_damage;
    scan.lease = Some(limits.lease).filter(|lease| *lease != 0);
    scan
}

fn shown(item: &PageItem, shows_record: bool) -> NativePageItem<'_> {
    NativePageItem {
        record: shows_record.then_some(item.record.as_slice()),
        item: &item.item,
        version: item.metadata.version,
        client_flags: item.metadata.client_flags,
        expiry: item.metadata.expiry,
        value_len: u32::try_from(item.value_len).unwrap_or(u32::MAX),
        value: item.value.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::key::Key;
    use larder_protocol::native::{ItemKeyList, ItemRange};

    const LIMITS: PageLimits = PageLimits {
        items_max: 0,
        bytes_max: 0,
        value_bytes_max: 0,
        keys_only: false,
        lease: 0,
        passes_damage: false,
    };

    fn get(record: &'static [u8], is_descending: bool, token: &[u8]) -> Option<NativeStatus> {
        let range = ItemRange::Prefix(b"");
        let get = GetItems {
            namespace: 0,
            record,
            range,
            keys: None,
            is_descending,
            limits: LIMITS,
            token,
        };
        let asked =
            Pages::asked(&NativeRequest::GetItems(get), (&NamespaceView::default(), 2), None)
                .expect("a page");
        asked.err().map(|(status, _)| status)
    }

    fn scan(namespace: u32, shards: u16, token: &[u8]) -> Result<u16, NativeStatus> {
        scan_in(namespace, shards, token, false)
    }

    fn scan_in(
        namespace: u32,
        shards: u16,
        token: &[u8],
        is_descending: bool,
    ) -> Result<u16, NativeStatus> {
        let scan = ScanItems { namespace, limits: LIMITS, token, is_descending };
        let asked =
            Pages::asked(&NativeRequest::Scan(scan), (&NamespaceView::default(), shards), None)
                .expect("a page");
        asked.map(|(_, request)| request.shard).map_err(|(status, _)| status)
    }

    fn place() -> PagePlace {
        let key = Key { namespace: 0, record: b"r", item: b"item" }.encode();
        PagePlace::from_bytes(&key[4..]).expect("a place")
    }

    fn of_record(record: &[u8]) -> Pages {
        let of = PagesOf::Record(route_hash(record));
        Pages::present(0, false, of)
    }

    #[test]
    fn a_token_is_good_for_its_own_request_only() {
        let token = of_record(b"r").token(place().as_bytes());
        let bad = Some(NativeStatus::BadToken);
        assert_eq!((get(b"r", false, &token), get(b"r", false, b"")), (None, None));
        assert_eq!(get(b"other", false, &token), bad);
        assert_eq!(get(b"r", true, &token), bad);
        assert_eq!(scan(0, 2, &token), Err(NativeStatus::BadToken));
        let elsewhere = Pages { namespace: 1, ..of_record(b"r") }.token(place().as_bytes());
        assert_eq!(get(b"r", false, &elsewhere), bad);
        assert_eq!(get(b"r", false, &of_record(b"r").token(&[])), bad, "it goes nowhere");
        let of_shard = |shard| Pages { of: PagesOf::Namespace(shard), ..of_record(b"r") };
        assert_eq!(scan(0, 2, &of_shard(1).token(&[])), Ok(1));
        assert_eq!(scan(0, 2, &of_shard(1).token(place().as_bytes())), Ok(1));
        assert_eq!(scan(0, 1, &of_shard(1).token(&[])), Err(NativeStatus::BadToken));
        assert_eq!(scan(7, 2, b""), Err(NativeStatus::UnknownNamespace));
        let reverse = Pages { is_descending: true, ..of_shard(0) };
        assert_eq!(scan(0, 2, &reverse.token(&[])), Err(NativeStatus::BadToken));
        assert_eq!(scan_in(0, 2, &of_shard(1).token(&[]), true), Err(NativeStatus::BadToken));
        assert_eq!(scan_in(0, 2, &reverse.token(place().as_bytes()), true), Ok(0));
        assert_eq!((scan_in(0, 7, b"", true), scan(0, 7, b"")), (Ok(6), Ok(0)));
        assert_eq!(scan(0, 2, &of_keys(&["a"]).token(&[1, 0, 0, 0])), Err(NativeStatus::BadToken));
    }

    fn of_keys(keys: &[&str]) -> Pages {
        keyed(keys, b"").expect("a good request").0
    }

    /// What is asked for by keys.
    fn keyed(keys: &[&str], token: &[u8]) -> Result<(Pages, KeyedItems), NativeStatus> {
        let list = ItemKeyList::new(keys).expect("good keys");
        let get = GetItems {
            namespace: 0,
            record: b"r",
            range: ItemRange::Prefix(b""),
            keys: Some(list.as_keys()),
            is_descending: false,
            limits: LIMITS,
            token,
        };
        let asked =
            Pages::asked(&NativeRequest::GetItems(get), (&NamespaceView::default(), 2), None)
                .expect("a page");
        let (pages, request) = asked.map_err(|(status, _)| status)?;
        let ShardWork::Keyed(keyed) = request.work else { panic!("{request:?}") };
        Ok((pages, keyed))
    }

    #[test]
    fn a_token_of_a_list_of_keys_goes_on_in_that_list() {
        let list = ["b", "a", "c"];
        let (pages, first) = keyed(&list, b"").expect("the first page");
        assert_eq!((first.first, first.keys.len(), first.record.as_slice()), (0, 3, &b"r"[..]));
        let token = |place: u32| pages.token(&place.to_le_bytes());
        assert_eq!(keyed(&list, &token(2)).map(|it| it.1.first), Ok(2));
        let bad = Err(NativeStatus::BadToken);
        assert_eq!(keyed(&list, &token(3)).map(|_| ()), bad, "it is no place in the list");
        assert_eq!(keyed(&["b", "ac", ""], &token(2)).map(|_| ()), bad, "another list");
        assert_eq!(keyed(&list, &of_record(b"r").token(place().as_bytes())).map(|_| ()), bad);
        assert_eq!(get(b"r", false, &token(2)), Some(NativeStatus::BadToken));
        for place in [&[][..], &[1, 0, 0], &[1, 0, 0, 0, 0]] {
            assert_eq!(Pages::read(&pages.token(place)), None, "{place:?}");
        }
    }

    #[test]
    fn a_token_with_a_flipped_bit_or_a_byte_less_is_refused() {
        let token = of_record(b"r").token(place().as_bytes());
        for bit in 0..token.len() * 8 {
            let mut flipped = token.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Pages::read(&flipped), None, "bit {bit}");
        }
        for len in 0..token.len() {
            assert_eq!(Pages::read(&token[..len]), None, "{len} bytes");
        }
        // What is of another format, or too long, is refused with the right checksum too.
        assert_eq!(Pages::read(&of_record(b"r").token(&[1; 1 << 12])), None);
        for (at, byte) in [(0, 2), (1, 3), (2, 2), (3, 1)] {
            let mut other = token[..token.len() - CHECKSUM_BYTES].to_vec();
            other[at] = byte;
            other.extend_from_slice(&crc32c::crc32c(&other).to_le_bytes());
            assert_eq!(Pages::read(&other), None, "byte {at}");
        }
    }

    #[test]
    fn a_scan_goes_through_all_shards() {
        let mut pages = Pages { of: PagesOf::Namespace(0), ..of_record(b"") };
        for shard in 0..3 {
            let same = pages.next(Some(&place()), 3).expect("there is more");
            assert_eq!(Pages::read(&same), Some((pages, Some(TokenPlace::Item(place())))));
            let next = pages.next(None, 3);
            if shard == 2 {
                assert_eq!(next, None);
                break;
            }
            (pages, _) = Pages::read(&next.expect("another shard")).expect("a token");
            assert_eq!(pages.of, PagesOf::Namespace(shard + 1));
        }
        let mut reverse =
            Pages { is_descending: true, of: PagesOf::Namespace(2), ..of_record(b"") };
        for shard in [1, 0] {
            let next = reverse.next(None, 3).expect("another shard");
            (reverse, _) = Pages::read(&next).expect("a token");
            assert_eq!((reverse.of, reverse.is_descending), (PagesOf::Namespace(shard), true));
        }
        assert_eq!(reverse.next(None, 3), None);
        assert_eq!(of_record(b"r").next(None, 3), None);
    }

    #[test]
    fn limits_are_those_of_the_node_where_none_or_more_is_asked_for() {
        let granted = |items_max, bytes_max, value_bytes_max| {
            let limits =
                PageLimits { items_max, bytes_max, value_bytes_max, keys_only: true, ..LIMITS };
            let usual = NamespaceSettings::default();
            let scan = limited(Scan::of_namespace(0), limits, &usual);
            assert!(scan.keys_only);
            (scan.items_max, scan.bytes_max, scan.value_bytes_max)
        };
        assert_eq!(granted(0, 0, 0), (PAGE_ITEMS_DEFAULT, PAGE_BYTES_DEFAULT, usize::MAX));
        assert_eq!(granted(1, 2, 3), (1, 2, 3));
        let most = (PAGE_ITEMS_MAX, PAGE_BYTES_MAX, u32::MAX as usize);
        assert_eq!(granted(u32::MAX, u32::MAX, u32::MAX), most);
    }

    #[test]
    fn a_namespace_may_allow_less_than_the_node() {
        let settings =
            NamespaceSettings { page_items_max: 10, page_bytes_max: 100, ..Default::default() };
        let granted = |items_max, bytes_max| {
            let limits = PageLimits { items_max, bytes_max, ..LIMITS };
            let scan = limited(Scan::of_namespace(1), limits, &settings);
            (scan.items_max, scan.bytes_max)
        };
        assert_eq!(
            (granted(0, 0), granted(9, 200), granted(11, 99)),
            ((10, 100), (9, 100), (10, 99))
        );
    }

    #[test]
    fn pages_of_a_lease_are_of_its_shard_alone() {
        let lease = |shard: u64| PageLimits { lease: 7 << 16 | shard, ..LIMITS };
        let asked = |limits, token: &[u8]| {
            let scan = NativeRequest::Scan(ScanItems {
                namespace: 0,
                limits,
                token,
                is_descending: false,
            });
            let asked = Pages::asked(&scan, (&NamespaceView::default(), 3), None);
            asked.expect("a page").map_err(|(status, _)| status)
        };
        let (pages, request) = asked(lease(1), b"").expect("it has that shard");
        let ShardWork::Page(scan) = &request.work else { panic!("{request:?}") };
        assert_eq!((request.shard, scan.lease), (1, Some(7 << 16 | 1)));
        assert_eq!(pages.next(None, 3), None, "the shard's end is the end");
        let token = pages.next(Some(&place()), 3).expect("there is more");
        assert!(asked(lease(1), &token).is_ok() && asked(LIMITS, &token).is_ok());
        assert_eq!(asked(lease(2), &token).map(|_| ()), Err(NativeStatus::BadToken));
        assert_eq!(asked(lease(3), b"").map(|_| ()), Err(NativeStatus::LeaseEnded));
        let shard = shard_of_hash(route_hash(b"r"), 3);
        let get = |of: u16| {
            let get = GetItems {
                namespace: 0,
                record: b"r",
                range: ItemRange::Prefix(b""),
                keys: None,
                is_descending: false,
                limits: lease(u64::from(of)),
                token: b"",
            };
            let request = NativeRequest::GetItems(get);
            let asked = Pages::asked(&request, (&NamespaceView::default(), 3), None);
            asked.expect("a page").map(|_| ()).map_err(|(status, _)| status)
        };
        assert_eq!(get(shard), Ok(()));
        assert_eq!(get((shard + 1) % 3), Err(NativeStatus::LeaseEnded));
    }
}
