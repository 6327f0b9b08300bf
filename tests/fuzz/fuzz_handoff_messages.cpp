// Bytes as each message that a worker takes from the wire: whatever parses is converted or refused
// with INVALID_ARGUMENT, and what is converted survives the way back. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "proto/tessera/common.pb.h"
#include "proto/tessera/decode.pb.h"
#include "proto/tessera/prefill.pb.h"
#include "proto/tessera/worker.pb.h"
#include "server/rpc/convert.h"

namespace {

using namespace tessera;

constexpr int64_t kMaxPromptTokens = 64;

void require(bool is_true) {
  if (!is_true) {
    std::abort();
  }
}

/// `convert(proto)` gives a Result; `back(value, proto)` writes it again.
template <typename Proto, typename Convert, typename Back>
void check(const uint8_t* data, size_t size, Convert convert, Back back) {
  Proto proto;
  if (!proto.ParseFromArray(data, static_cast<int>(size))) {
    return;
  }
  const auto result = convert(proto);
  if (!result.is_ok()) {
    require(result.status().code() == StatusCode::kInvalidArgument);
    return;
  }
  Proto again;
  back(result.value(), again);
  require(convert(again).is_ok());
}

template <typename Proto>
void check_plain(const uint8_t* data, size_t size) {
  check<Proto>(
      data,
      size,
      [](const Proto& proto) { return rpc::from_proto(proto); },
      [](const auto& value, Proto& out) { rpc::to_proto(value, out); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const uint8_t choice = data[0] % 7;
  ++data;
  --size;
  switch (choice) {
    case 0:
      check_plain<v1::PrefillMessage>(data, size);
      break;
    case 1:
      check_plain<v1::DecodeMessage>(data, size);
      break;
    case 2:
      check_plain<v1::AttachRequest>(data, size);
      break;
    case 3:
      check_plain<v1::WorkerInfo>(data, size);
      break;
    case 4:
      check_plain<v1::WorkerLoad>(data, size);
      break;
    case 5:
      check<v1::PrefillRequest>(
          data,
          size,
          [](const auto& proto) { return rpc::from_proto(proto, kMaxPromptTokens); },
          [](const auto& value, auto& out) { rpc::to_proto(value, out); });
      break;
    default:
      check<v1::GenerateRequest>(
          data,
          size,
          [](const auto& proto) { return rpc::from_proto(proto, kMaxPromptTokens); },
          [](const auto& value, auto& out) { rpc::to_proto(value.first, value.second, out); });
  }
  return 0;
}
