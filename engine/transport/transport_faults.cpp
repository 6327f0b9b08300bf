#include <charconv>
#include <string>

#include "engine/base/text.h"
#include "engine/transport/transport_options.h"

namespace tessera {
namespace {

int64_t* fault_named(TransportFaults& faults, std::string_view name) {
  if (name == "drop_ready") {
    return &faults.drop_ready;
  }
  if (name == "drop_ack") {
    return &faults.drop_ack;
  }
  return name == "flip" ? &faults.flip : nullptr;
}

Status parse_fault(std::string_view text, TransportFaults& faults) {
  const size_t equals = text.find('=');
  int64_t* fault =
      equals == std::string_view::npos ? nullptr : fault_named(faults, text.substr(0, equals));
  if (fault == nullptr) {
    return invalid_argument(
        str_cat("transport fault \"", text, "\" is none of drop_ready=N, drop_ack=N, flip=N"));
  }
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data() + equals + 1, end, *fault);
  if (error != std::errc() || stopped != end || *fault < 1) {
    return invalid_argument(str_cat("transport fault \"", text, "\" needs a number of at least 1"));
  }
  return Status::ok();
}

}  // namespace

Result<TransportFaults> parse_transport_faults(std::string_view text) {
  TransportFaults faults;
  size_t begin = text.empty() ? std::string_view::npos : 0;
  while (begin != std::string_view::npos) {
    const size_t comma = text.find(',', begin);
    const Status status = parse_fault(text.substr(begin, comma - begin), faults);
    if (!status.is_ok()) {
      return status;
    }
    begin = comma == std::string_view::npos ? comma : comma + 1;
  }
  return faults;
}

}  // namespace tessera
