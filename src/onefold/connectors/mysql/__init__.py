"""MySQL and MariaDB: tables as transactional sinks."""

from onefold.connectors.mysql.endpoint import MysqlDatabase, MysqlTable, mysql
from onefold.connectors.mysql.sink import MysqlSink

__all__ = ["MysqlDatabase", "MysqlSink", "MysqlTable", "mysql"]
