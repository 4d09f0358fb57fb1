/* The few netlink messages of a container's network, built by hand. */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* One or more messages on their way into one sendto; only the last asks for an answer. */
struct batch {
	char bytes[1024];
	unsigned length;
	struct nlmsghdr *last;
};

int netlink_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		fail("netlink");
	return fd;
}

static void *grow(struct batch *batch, unsigned size)
{
	void *place = batch->bytes + batch->length;
	memset(place, 0, NLMSG_ALIGN(size));
	batch->length += NLMSG_ALIGN(size);
	if (batch->last)
		batch->last->nlmsg_len += NLMSG_ALIGN(size);
	return place;
}

static void *message(struct batch *batch, int type, int flags, unsigned size)
{
	batch->last = NULL;
	struct nlmsghdr *head = grow(batch, NLMSG_HDRLEN);
	*head = (struct nlmsghdr){ .nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags };
	batch->last = head;
	return grow(batch, size);
}

static void attribute(struct batch *batch, int type, const void *value, unsigned size)
{
	struct rtattr *head = grow(batch, RTA_LENGTH(size));
	head->rta_type = (unsigned short)type;
	head->rta_len = (unsigned short)RTA_LENGTH(size);
	memcpy(RTA_DATA(head), value, size);
}

static struct rtattr *nest(struct batch *batch, int type)
{
	struct rtattr *head = grow(batch, RTA_LENGTH(0));
	head->rta_type = (unsigned short)type;
	return head;
}

static void close_nest(struct batch *batch, struct rtattr *head)
{
	head->rta_len = (unsigned short)(batch->bytes + batch->length - (char *)head);
}

static void deliver(int fd, struct batch *batch, const char *step)
{
	char answer[8192];
	batch->last->nlmsg_flags |= NLM_F_ACK;
	if (sendto(fd, batch->bytes, batch->length, 0, NULL, 0) < 0)
		fail(step);
	if (recv(fd, answer, sizeof answer, 0) < 0)
		fail(step);
	struct nlmsghdr *head = (struct nlmsghdr *)answer;
	struct nlmsgerr *error = NLMSG_DATA(head);
	if (head->nlmsg_type == NLMSG_ERROR && error->error != 0) {
		errno = -error->error;
		fail(step);
	}
}

static int index_of(int fd, const char *name)
{
	struct ifreq request = { 0 };
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
		fail(name);
	return request.ifr_ifindex;
}

int bridge_make(int netlink, const char *name)
{
	struct batch batch = { .length = 0 };
	struct ifinfomsg *link = message(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *link);
	link->ifi_flags = link->ifi_change = IFF_UP;
	attribute(&batch, IFLA_IFNAME, name, (unsigned)strlen(name) + 1);
	struct rtattr *info = nest(&batch, IFLA_LINKINFO);
	attribute(&batch, IFLA_INFO_KIND, "bridge", 7);
	close_nest(&batch, info);
	deliver(netlink, &batch, "make the bridge");
	return index_of(netlink, name);
}

void bridge_remove(int netlink, const char *name)
{
	struct batch batch = { .length = 0 };
	struct ifinfomsg *link = message(&batch, RTM_DELLINK, 0, sizeof *link);
	link->ifi_index = index_of(netlink, name);
	deliver(netlink, &batch, "remove the bridge");
}

void cable_plug(int netlink, int bridge, int pid, const struct addresses *own)
{
	static unsigned counter;
	char name[IFNAMSIZ];
	uint32_t mtu = 1400, master = (uint32_t)bridge, home = (uint32_t)pid;
	uint8_t mac[6] = { 0x02, 0x6e, own->v4[0], own->v4[1], own->v4[2], own->v4[3] }, on = 1;
	snprintf(name, sizeof name, "li%x-%x", (unsigned)getpid() & 0xffff, counter++);
	struct batch batch = { .length = 0 };
	struct ifinfomsg *link = message(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *link);
	link->ifi_flags = link->ifi_change = IFF_UP;
	attribute(&batch, IFLA_IFNAME, name, (unsigned)strlen(name) + 1);
	attribute(&batch, IFLA_MTU, &mtu, sizeof mtu);
	attribute(&batch, IFLA_MASTER, &master, sizeof master);
	struct rtattr *info = nest(&batch, IFLA_LINKINFO);
	attribute(&batch, IFLA_INFO_KIND, "veth", 5);
	struct rtattr *data = nest(&batch, IFLA_INFO_DATA);
	struct rtattr *peer = nest(&batch, VETH_INFO_PEER);
	grow(&batch, sizeof(struct ifinfomsg));
	attribute(&batch, IFLA_IFNAME, "eth0", 5);
	attribute(&batch, IFLA_MTU, &mtu, sizeof mtu);
	attribute(&batch, IFLA_NET_NS_PID, &home, sizeof home);
	attribute(&batch, IFLA_ADDRESS, mac, sizeof mac);
	close_nest(&batch, peer);
	close_nest(&batch, data);
	close_nest(&batch, info);
	message(&batch, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
	attribute(&batch, IFLA_IFNAME, name, (unsigned)strlen(name) + 1);
	info = nest(&batch, IFLA_LINKINFO);
	attribute(&batch, IFLA_INFO_SLAVE_KIND, "bridge", 7);
	data = nest(&batch, IFLA_INFO_SLAVE_DATA);
	attribute(&batch, IFLA_BRPORT_MODE, &on, sizeof on);
	close_nest(&batch, data);
	close_nest(&batch, info);
	deliver(netlink, &batch, "plug the cable");
}

static void up(struct batch *batch, int index)
{
	struct ifinfomsg *link = message(batch, RTM_SETLINK, 0, sizeof *link);
	link->ifi_index = index;
	link->ifi_flags = link->ifi_change = IFF_UP;
}

static void address(struct batch *batch, int index, int family, const void *own, unsigned size, int length)
{
	struct ifaddrmsg *head = message(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *head);
	head->ifa_family = (unsigned char)family;
	head->ifa_prefixlen = (unsigned char)length;
	head->ifa_index = (unsigned)index;
	attribute(batch, IFA_ADDRESS, own, size);
	attribute(batch, IFA_LOCAL, own, size);
}

static void route(struct batch *batch, int index, int family, const void *gateway, unsigned size)
{
	struct rtmsg *head = message(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof *head);
	head->rtm_family = (unsigned char)family;
	head->rtm_table = RT_TABLE_MAIN;
	head->rtm_protocol = RTPROT_BOOT;
	head->rtm_scope = RT_SCOPE_UNIVERSE;
	head->rtm_type = RTN_UNICAST;
	attribute(batch, RTA_GATEWAY, gateway, size);
	attribute(batch, RTA_OIF, &index, sizeof index);
}

void network_up(const struct addresses *own)
{
	int fd = netlink_open();
	struct batch batch = { .length = 0 };
	up(&batch, 1);
	if (own) {
		int index = index_of(fd, "eth0");
		uint8_t v4[4] = { own->v4[0], own->v4[1], 255, 254 }, v6[16];
		memcpy(v6, own->v6, sizeof v6);
		v6[14] = v6[15] = 0xff;
		up(&batch, index);
		address(&batch, index, AF_INET, own->v4, 4, 16);
		address(&batch, index, AF_INET6, own->v6, 16, 64);
		route(&batch, index, AF_INET, v4, 4);
		route(&batch, index, AF_INET6, v6, 16);
	}
	deliver(fd, &batch, "bring up the network");
	close(fd);
}
