"""The methods that ``--auth`` has from mtserver, for every program that asks ``strcred``. Kept to lazy lines."""

from mtserver.auth import plugins

introspect, jwt, passwords = plugins.INTROSPECT, plugins.JWT, plugins.PASSWORDS
