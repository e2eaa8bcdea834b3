package index

const crashDirEnv = "THAW_TEST_CRASH_DIR"

func crashMain(string) int { return 0 }
