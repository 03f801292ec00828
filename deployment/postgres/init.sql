-- Runs once, when the volume is new: a database each for the platform and for Argilla, each with a role of its own
-- that may connect to its own database only.
\getenv platform_password PLATFORM_DATABASE_PASSWORD
\getenv argilla_password ARGILLA_DATABASE_PASSWORD
-- A statement that fails must not bring a password into the log.
set log_min_error_statement = panic;
set log_statement = none;

create role annotation_platform login nosuperuser nocreatedb nocreaterole password :'platform_password';
create role argilla login nosuperuser nocreatedb nocreaterole password :'argilla_password';
create database annotation_platform owner annotation_platform;
create database argilla owner argilla;
revoke connect on database annotation_platform from public;
revoke connect on database argilla from public;
revoke connect on database postgres from public;
