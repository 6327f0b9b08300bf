// Bounds of everything that comes in over gRPC; the comments of proto/tessera/*.proto state the
// same numbers.
#pragma once

#include <cstdint>

namespace tessera::rpc {

inline constexpr int kMaxMessageBytes = 16 << 20;

inline constexpr int64_t kMaxPromptTokens = int64_t{1} << 20;
inline constexpr int64_t kMaxTotalTokens = int64_t{1} << 32;
inline constexpr int64_t kMaxChoices = 128;
inline constexpr int64_t kMaxChoiceNumber = 1 << 16;
inline constexpr int64_t kMaxTopLogprobs = 64;
inline constexpr int64_t kMaxLogitBiases = 1024;
inline constexpr int64_t kMaxStopTokenIds = 1024;
inline constexpr int64_t kMaxTimeoutMs = int64_t{7} * 24 * 3600 * 1000;
inline constexpr int64_t kMaxDecodeCandidates = 16;
inline constexpr int64_t kMaxAddressBytes = 256;
inline constexpr int64_t kMaxNameBytes = 256;
inline constexpr int64_t kMaxTextBytes = 1024;
inline constexpr int64_t kMaxStatusBytes = 4096;
inline constexpr int64_t kMaxProbes = 64;
inline constexpr int64_t kMaxLiveKeys = 65536;
inline constexpr int64_t kMaxRanks = 64;
inline constexpr int64_t kMaxOpaqueBytes = 64 << 10;
inline constexpr int64_t kMaxLandingSlots = 1 << 20;
inline constexpr int64_t kMaxSlotBytes = int64_t{4} << 30;

inline constexpr int64_t kMinLoadPeriodMs = 10;
inline constexpr int64_t kDefaultLoadPeriodMs = 200;
inline constexpr int64_t kMaxLoadPeriodMs = 10'000;

}  // namespace tessera::rpc
