#include "engine/weights/checkpoint_fingerprint.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/mapped_file.h"

namespace tessera {
namespace {

constexpr int64_t kNumSamples = 64;
constexpr int64_t kSampleBytes = 4096;
// Safetensors: the first 8 bytes are the header's length. Longer headers are covered by samples.
constexpr int64_t kHeadBytes = int64_t{1} << 20;

Result<std::vector<std::string>> weight_files(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator entry(folder, error), end; entry != end && !error;
       entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") {
      names.push_back(entry->path().filename().string());
    }
  }
  if (error) {
    return not_found(str_cat(folder, ": ", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string_view bytes_at(const MappedFile& file, int64_t begin, int64_t count) {
  const int64_t end = std::min(begin + count, file.num_bytes());
  return {file.data() + begin, static_cast<size_t>(end - begin)};
}

Status add_weights(const std::string& path, Fingerprint& digest) {
  TESSERA_TRY(const MappedFile file, MappedFile::open(path));
  digest.add(str_cat(file.num_bytes())).add(bytes_at(file, 0, kHeadBytes));
  for (int64_t i = 0; i < kNumSamples; ++i) {
    // In this order: the size of a file in bytes times 64 fits into 64 bits.
    digest.add(bytes_at(file, file.num_bytes() * i / kNumSamples, kSampleBytes));
  }
  return Status::ok();
}

}  // namespace

Result<std::string> checkpoint_fingerprint(const std::string& folder) {
  Fingerprint digest;
  TESSERA_TRY(const MappedFile config, MappedFile::open(folder + "/config.json"));
  digest.add(bytes_at(config, 0, config.num_bytes()));
  TESSERA_TRY(const auto names, weight_files(folder));
  for (const std::string& name : names) {
    digest.add(name);
    TESSERA_RETURN_IF_ERROR(add_weights(folder + "/" + name, digest));
  }
  return digest.finish();
}

}  // namespace tessera
