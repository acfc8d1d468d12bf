"""Imports a profile with NetworkManager's own OpenVPN plugin, as nmcli does, and prints what it understood."""

import sys

import gi

gi.require_version("NM", "1.0")
from gi.repository import NM  # noqa: E402 -- the version comes first

(plugin,) = [plugin for plugin in NM.VpnPluginInfo.list_load() if plugin.get_name() == "openvpn"]
connection = plugin.load_editor_plugin().import_(sys.argv[1])
vpn, ip4 = connection.get_setting_vpn(), connection.get_setting_ip4_config()
for key in vpn.get_data_keys():
    print(key, "=", vpn.get_data_item(key))
for number in range(ip4.get_num_routes()):
    route = ip4.get_route(number)
    print("route =", f"{route.get_dest()}/{route.get_prefix()}")
print("never-default =", ip4.get_never_default())
