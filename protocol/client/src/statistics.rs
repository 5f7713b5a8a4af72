//! A node in figures.

use larder_protocol::native::{NativeRequest, StatisticsReply};

use crate::connection::ClientConnection;
use crate::error::ClientError;

impl ClientConnection {
    /// The node's figures over all its cores, by name. They are answered behind what was sent
    /// before on this connection.
    ///
    /// # Errors
    /// Any.
    pub fn statistics(&mut self) -> Result<Vec<(String, String)>, ClientError> {
        let body = self.call(&NativeRequest::Statistics)?.ok(&[])?.body;
        let reply = StatisticsReply::decode(&body);
        let reply = reply.map_err(|error| ClientError::Foreign(error.to_string()));
        self.judge(reply).map(|reply| reply.values)
    }
}
