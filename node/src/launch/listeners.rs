//! Listening sockets with a port. They are bound first, so that a port in use is noticed before any
//! work is done, and wait unserved until the shards are open.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use larder_runtime::ring_network::ClientListener;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::StartError;
use super::patience::Patience;
use crate::config::Config;
use crate::limits::LISTEN_BACKLOG;

/// Which protocol is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Memcached,
    Native,
}

/// The listeners of all cores.
#[derive(Debug)]
pub(super) struct Listeners {
    /// One list for each core.
    pub by_core: Vec<Vec<(ClientListener, Door)>>,
    /// The memcached port, if there is one.
    pub memcached: Option<SocketAddr>,
    pub native: SocketAddr,
    pub admin: TcpListener,
    /// The first of the per-core ports.
    pub core_ports: Option<u16>,
}

impl Listeners {
    /// Has every core accept clients of `socket`, which has this path.
    pub(super) fn add_local(
        &mut self,
        path: &Path,
        socket: &UnixListener,
    ) -> Result<(), StartError> {
        for listeners in &mut self.by_core {
            let socket = socket.try_clone().map_err(|source| StartError::UnixSocket {
                path: path.to_owned(),
                operation: "share",
                source,
            })?;
            listeners.push((ClientListener::Local(socket), Door::Memcached));
        }
        Ok(())
    }
}

/// Binds everything that `config` asks for. Addresses in use may become free.
pub(super) fn bind(
    config: &Config,
    cores: usize,
    patience: &mut Patience<'_>,
) -> Result<Listeners, StartError> {
    let may_pass = |error: &StartError| matches!(error, StartError::PortInUse { .. });
    patience.retry(may_pass, || bind_now(config, cores))
}

fn bind_now(config: &Config, cores: usize) -> Result<Listeners, StartError> {
    let asked = |port| SocketAddr::new(config.listen, port);
    let (native, native_shared) = bind_shared(asked(config.native_port), cores, "--native-port")?;
    let mut by_core: Vec<Vec<(ClientListener, Door)>> = (0..cores).map(|_| Vec::new()).collect();
    let mut memcached = None;
    if config.has_memcached_port {
        let (address, shared) =
            bind_shared(asked(config.memcached_port), cores, "--memcached-port")?;
        memcached = Some(address);
        for (listeners, shared) in by_core.iter_mut().zip(shared) {
            listeners.push((shared.into(), Door::Memcached));
        }
    }
    for (core, (listeners, native_shared)) in by_core.iter_mut().zip(native_shared).enumerate() {
        listeners.push((native_shared.into(), Door::Native));
        let own = [
            (config.core_ports, "--core-ports", Door::Memcached),
            (config.native_core_ports, "--native-core-ports", Door::Native),
        ];
        for (base, option, door) in own {
            let Some(base) = base else { continue };
            let port = u16::try_from(core).ok().and_then(|core| base.checked_add(core));
            let port = port.ok_or(StartError::CorePorts { base, cores, option })?;
            listeners.push((listener(asked(port), false, option)?.into(), door));
        }
    }
    let admin = listener(asked(config.admin_port), false, "--admin-port")?;
    Ok(Listeners { by_core, memcached, native, admin, core_ports: config.core_ports })
}

/// One listener for each core, all on one port, over which the kernel spreads the connections.
fn bind_shared(
    asked: SocketAddr,
    cores: usize,
    option: &'static str,
) -> Result<(SocketAddr, Vec<TcpListener>), StartError> {
    if asked.port() != 0 {
        // It would also share the port with another process that has bound it in the same way.
        drop(listener(asked, false, option)?);
    }
    let first = listener(asked, true, option)?;
    let address = first.local_addr().map_err(|source| StartError::Listen {
        address: asked,
        option,
        source,
    })?;
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listener(address, true, option)?);
    }
    Ok((address, listeners))
}

fn listener(
    address: SocketAddr,
    is_shared: bool,
    option: &'static str,
) -> Result<TcpListener, StartError> {
    open(address, is_shared).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return StartError::PortInUse { address, option };
        }
        StartError::Listen { address, option, source: error }
    })
}

fn open(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A port whose last connections are in TIME_WAIT can be bound again.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is_shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    ClientListener::prepare(&socket)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_cores_share_the_port_that_was_picked() {
        let config =
            Config { memcached_port: 0, native_port: 0, admin_port: 0, ..Config::default() };
        let listeners = bind_now(&config, 3).expect("free ports");
        let memcached = listeners.memcached.expect("a port");
        assert_ne!(memcached.port(), 0);
        for listener in listeners.by_core.iter().map(|listeners| &listeners[0].0) {
            let ClientListener::Tcp(listener) = listener else { panic!("it has a port") };
            assert_eq!(listener.local_addr().expect("bound"), memcached);
        }
        let taken = Config { memcached_port: memcached.port(), ..config.clone() };
        let error = bind_now(&taken, 1).expect_err("the port is in use").to_string();
        assert!(error.contains("in use") && error.contains("--memcached-port"), "{error}");
        let admin = listeners.admin.local_addr().expect("bound").port();
        let error = bind_now(&Config { admin_port: admin, ..config }, 1).expect_err("in use");
        assert!(error.to_string().contains("--admin-port"), "{error}");
    }

    #[test]
    fn who_connects_before_any_core_accepts_gets_small_answers_at_once() {
        let config =
            Config { memcached_port: 0, native_port: 0, admin_port: 0, ..Config::default() };
        let listeners = bind_now(&config, 1).expect("free ports");
        for (listener, door) in &listeners.by_core[0] {
            let ClientListener::Tcp(listener) = listener else { panic!("it has a port") };
            let address = listener.local_addr().expect("bound");
            let client = std::net::TcpStream::connect(address).expect("it listens");
            let (accepted, _) = listener.accept().expect("a client waits");
            assert!(accepted.nodelay().expect("an option"), "{door:?}");
            assert!(sockopt::socket_keepalive(&accepted).expect("an option"), "{door:?}");
            drop(client);
        }
    }

    #[test]
    fn there_may_be_no_memcached_port() {
        let config = Config {
            has_memcached_port: false,
            native_port: 0,
            admin_port: 0,
            ..Config::default()
        };
        let listeners = bind_now(&config, 2).expect("free ports");
        assert_eq!(listeners.memcached, None);
        for core in &listeners.by_core {
            assert!(core.len() == 1 && core[0].1 == Door::Native);
        }
    }

    #[test]
    fn an_address_that_becomes_free_is_waited_for() {
        let free = Config { memcached_port: 0, native_port: 0, admin_port: 0, ..Config::default() };
        let held = bind_now(&free, 1).expect("free ports");
        let admin_port = held.admin.local_addr().expect("bound").port();
        let config =
            Config { memcached_port: held.memcached.expect("a port").port(), admin_port, ..free };
        let (_events, queue) = std::sync::mpsc::channel();
        let mut impatient = Patience::new(&queue, Duration::ZERO);
        let error = bind(&config, 1, &mut impatient).expect_err("in use").to_string();
        assert!(error.contains("in use") && error.contains("--memcached-port"), "{error}");
        let mut patience = Patience::new(&queue, Duration::from_secs(3600));
        std::thread::scope(|scope| {
            let (begun, has_begun) = std::sync::mpsc::channel();
            scope.spawn(move || {
                has_begun.recv().expect("the test goes on");
                drop(held);
            });
            begun.send(()).expect("the other thread waits");
            let bound = bind(&config, 1, &mut patience).expect("free in the end");
            assert_eq!(bound.memcached.expect("a port").port(), config.memcached_port);
        });
    }

    #[test]
    fn core_ports_beyond_the_last_port_are_refused() {
        let config = Config {
            memcached_port: 0,
            native_port: 0,
            admin_port: 0,
            core_ports: Some(u16::MAX),
            ..Config::default()
        };
        let error = bind_now(&config, 2).expect_err("there is no port 65536").to_string();
        assert!(error.contains("--core-ports 65535"), "{error}");
    }
}
