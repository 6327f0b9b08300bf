# Writes a C++ source with the bytes of a file: kNAMEBytes and kNumNAMEBytes in NAMESPACE.
#   cmake -DINPUT=file -DOUTPUT=file.cpp -DNAMESPACE=a::b -DNAME=Page -P embed_file.cmake
file(READ "${INPUT}" hex HEX)
string(LENGTH "${hex}" num_digits)
math(EXPR num_bytes "${num_digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE "${OUTPUT}" "#include <cstddef>
namespace ${NAMESPACE} {
extern const unsigned char k${NAME}Bytes[];
extern const size_t kNum${NAME}Bytes;
const unsigned char k${NAME}Bytes[] = {${bytes}};
const size_t kNum${NAME}Bytes = ${num_bytes};
}  // namespace ${NAMESPACE}
")
