#include "server/router/worker_addresses.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <string_view>
#include <utility>

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

constexpr std::string_view kDnsPrefix = "dns:";
constexpr size_t kMaxAddressBytes = 256;  // the bound of the prefill protocol

bool is_port(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 1 && value <= 65'535;
}

Result<DnsName> split_address(const std::string& entry, std::string_view address) {
  const size_t colon = address.rfind(':');
  const bool is_good = colon != std::string_view::npos && colon > 0 &&
                       is_port(address.substr(colon + 1)) && address.size() <= kMaxAddressBytes;
  if (!is_good) {
    return invalid_argument(
        str_cat("worker \"", entry, "\" is neither host:port nor dns:name:port"));
  }
  return DnsName{std::string(address.substr(0, colon)), std::string(address.substr(colon + 1))};
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string_view::npos
             ? std::string_view()
             : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

Status add_entry(std::string_view text, WorkerSpec& spec) {
  const std::string entry(trimmed(text));
  const bool is_name = entry.starts_with(kDnsPrefix);
  const std::string_view address = std::string_view(entry).substr(is_name ? kDnsPrefix.size() : 0);
  TESSERA_TRY(DnsName name, split_address(entry, address));
  if (is_name) {
    spec.names.push_back(std::move(name));
  } else {
    spec.addresses.push_back(entry);
  }
  return Status::ok();
}

void append_new(const std::vector<std::string>& from, std::vector<std::string>& to) {
  for (const std::string& address : from) {
    if (to.size() < kMaxWorkersPerRole && std::find(to.begin(), to.end(), address) == to.end()) {
      to.push_back(address);
    }
  }
}

std::string numeric_address(const addrinfo& info, const std::string& port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (info.ai_family == AF_INET) {
    const auto* address = reinterpret_cast<const sockaddr_in*>(info.ai_addr);
    inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text));
    return str_cat(text, ":", port);
  }
  if (info.ai_family == AF_INET6) {
    const auto* address = reinterpret_cast<const sockaddr_in6*>(info.ai_addr);
    inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof(text));
    return str_cat("[", text, "]:", port);
  }
  return "";
}

}  // namespace

Result<WorkerSpec> WorkerSpec::parse(const std::string& text) {
  WorkerSpec spec;
  std::string_view rest = text;
  while (!trimmed(rest).empty()) {
    const size_t comma = rest.find(',');
    Status status = add_entry(rest.substr(0, comma), spec);
    if (!status.is_ok()) {
      return status;
    }
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  const size_t num_entries = spec.addresses.size() + spec.names.size();
  if (num_entries > kMaxWorkersPerRole) {
    return invalid_argument(
        str_cat("a list names ", num_entries, " workers, expected at most ", kMaxWorkersPerRole));
  }
  return spec;
}

Result<std::vector<std::string>> resolve_with_getaddrinfo_blocking(const DnsName& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(name.name.c_str(), name.port.c_str(), &hints, &found);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  if (error != 0) {
    return unavailable(str_cat("resolving ", name.name, ": ", gai_strerror(error)));
  }
  std::vector<std::string> addresses;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    if (std::string address = numeric_address(*info, name.port); !address.empty()) {
      addresses.push_back(std::move(address));
    }
  }
  // Resolvers rotate their answers; a stable order keeps the list of workers stable.
  std::sort(addresses.begin(), addresses.end());
  return addresses;
}

std::vector<std::string> AddressBook::refresh_blocking() {
  std::vector<std::string> addresses;
  append_new(spec_.addresses, addresses);
  for (const DnsName& name : spec_.names) {
    Known& known = known_[str_cat(name.name, ":", name.port)];
    resolve_blocking(name, known);
    append_new(known.addresses, addresses);
  }
  return addresses;
}

void AddressBook::resolve_blocking(const DnsName& name, Known& known) {
  auto resolved = resolver_(name);
  if (resolved.is_ok()) {
    known.has_failed = false;
    known.addresses = std::move(resolved).value();
    return;
  }
  if (!known.has_failed) {
    log_warning("dns_failed",
                "name",
                name.name,
                "reason",
                resolved.status().message(),
                "kept_addresses",
                known.addresses.size());
  }
  known.has_failed = true;
}

AddressWatcher::AddressWatcher(AddressBook prefill,
                               AddressBook decode,
                               Deadline::Clock::duration period,
                               Listener listener)
    : prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      period_(period),
      listener_(std::move(listener)),
      thread_([this](const std::stop_token& stop) { run_thread(stop); }) {}

AddressWatcher::~AddressWatcher() {
  thread_.request_stop();
}

void AddressWatcher::run_thread(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "resolver");
  bool is_first = true;
  while (!stop.stop_requested()) {
    if (is_first || !prefill_.spec().names.empty()) {
      listener_(WorkerRole::kPrefill, prefill_.refresh_blocking());
    }
    if (is_first || !decode_.spec().names.empty()) {
      listener_(WorkerRole::kDecode, decode_.refresh_blocking());
    }
    is_first = false;
    std::unique_lock lock(mutex_);
    is_stopping_.wait_for(lock, stop, period_, [] { return false; });
  }
}

}  // namespace tessera::router
