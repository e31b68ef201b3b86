"""The keeper: a small parent that holds what must outlive a platform process, and replaces that process.

Theory of operation. `runyard serve` becomes this program, which stands on the standard library alone: it is there in a
moment, it stays small, and no upgrade of what it starts can break it.

1. It claims the data directory, listens on both ports, and starts the *server*: the platform itself, a child that inherits
   the listening sockets. While no server accepts, connections wait in the backlog; none is refused. A server may ask for
   more ports, at addresses of networks that come and go; each server after it gets them, too, through its *hatch*.
2. It is the parent of workers. The server asks for each over its *line*, a socket pair that speaks lines of JSON. A
   worker's output goes through a pipe into a *spool*, a file that the server reads when it is told; what it has read is
   cut off. A full spool is not read into, so that the worker waits at its pipe: nothing is lost, and everything is bounded.
   Ends are remembered until a server has dealt with them.
3. It is the sub-reaper of all that workers start: what loses its parent becomes the keeper's child, and at the end the
   keeper kills its children until it has none. When the keeper itself is killed, the kernel kills the workers (they ask for
   that with `--pdeathsig`), and the server, whose line has ended, goes too.
4. A restart starts a second server and lets it stand by: everything is loaded, nothing is opened. Then the first is told to
   hand over, and the second opens when the first has gone. Connections without a request under way change hands through the
   *corridor*, a socket pair that all servers inherit. If the second cannot come to stand by, the first never hears of it.
5. A server that ends by itself is replaced, at once when it had run for a while, else after a pause that doubles.
"""
