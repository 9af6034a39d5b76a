"""HTTP/1.1 on the wire: strict reading of heads and bodies, without I/O. Both the server and the client use it."""
