#include "engine/calibration/statistics_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"

namespace tessera {
namespace {

// The file: a head of fixed size, then the sums, as the machine has them.
constexpr std::string_view kMagic = "tessera-statistics-1";
constexpr size_t kTextBytes = 32;  // of a fingerprint

struct Head {
  std::array<char, kTextBytes> magic{};
  std::array<char, kTextBytes> key{};     // fingerprint of the key
  std::array<char, kTextBytes> digest{};  // fingerprint of everything behind it
  int64_t num_windows = 0;
  int64_t num_sums = 0;
};

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

std::array<char, kTextBytes> to_array(std::string_view text) {
  std::array<char, kTextBytes> result{};
  std::copy_n(text.begin(), std::min(text.size(), kTextBytes), result.begin());
  return result;
}

std::string_view bytes_of(const void* data, size_t size) {
  return {static_cast<const char*>(data), size};
}

std::array<char, kTextBytes> digest_of(const Head& head, std::span<const double> sums) {
  return to_array(Fingerprint()
                      .add(bytes_of(&head.num_windows, sizeof(head.num_windows)))
                      .add(bytes_of(sums.data(), sums.size_bytes()))
                      .finish());
}

Status system_error(const std::string& path) {
  return internal_error(str_cat(path, ": ", std::strerror(errno)));
}

}  // namespace

Status save_statistics(const std::string& path,
                       const std::string& key,
                       int64_t num_windows,
                       const LatentStatistics& statistics) {
  const std::span<const double> sums = statistics.sums();
  Head head{.magic = to_array(kMagic), .key = to_array(Fingerprint().add(key).finish())};
  head.num_windows = num_windows;
  head.num_sums = static_cast<int64_t>(sums.size());
  head.digest = digest_of(head, sums);
  const std::string unfinished = path + ".unfinished";
  File file(std::fopen(unfinished.c_str(), "wb"));
  if (file == nullptr || std::fwrite(&head, sizeof(head), 1, file.get()) != 1 ||
      std::fwrite(sums.data(), sizeof(double), sums.size(), file.get()) != sums.size() ||
      std::fclose(file.release()) != 0 || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    Status status = system_error(path);
    static_cast<void>(std::remove(unfinished.c_str()));
    return status;
  }
  return Status::ok();
}

Result<int64_t> load_statistics(const std::string& path,
                                const std::string& key,
                                LatentStatistics& statistics) {
  const File file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) {
    return errno == ENOENT ? not_found(str_cat(path, ": no such file")) : system_error(path);
  }
  Head head;
  if (std::fread(&head, sizeof(head), 1, file.get()) != 1 || head.magic != to_array(kMagic)) {
    return invalid_argument(str_cat(path, ": not a file of statistics"));
  }
  if (head.key != to_array(Fingerprint().add(key).finish())) {
    return invalid_argument(str_cat(path, ": of another model, text or options"));
  }
  std::vector<double> sums(statistics.sums().size());
  if (head.num_sums != static_cast<int64_t>(sums.size()) || head.num_windows < 0) {
    return invalid_argument(
        str_cat(path, ": has ", head.num_sums, " sums, expected ", sums.size()));
  }
  if (std::fread(sums.data(), sizeof(double), sums.size(), file.get()) != sums.size() ||
      std::fgetc(file.get()) != EOF || head.digest != digest_of(head, sums)) {
    return data_loss(str_cat(path, ": is damaged"));
  }
  std::copy(sums.begin(), sums.end(), statistics.sums().begin());
  return head.num_windows;
}

}  // namespace tessera
